package testkit

import (
	"strings"
	"testing"
)

const (
	goodChecks = `[{"check":"a","host_name":"","timestamp":1,"status":3,"message":"","tags":null},` +
		`{"check":"b","host_name":"h","timestamp":2,"status":0,"message":"m","tags":["t","u"]}]`
	goodEvents = `{"apiKey":"","events":{"api":[{"msg_title":"t","msg_text":"","timestamp":1,"priority":"low","host":"","alert_type":"info"}],` +
		`"s":[{"msg_title":"t","msg_text":"x","timestamp":1,"priority":"normal","host":"h","tags":["t"],"alert_type":"error",` +
		`"aggregation_key":"k","source_type_name":"s"}]},"internalHostname":"h"}`
)

// What Datadog would not understand is not passed over in silence.
func TestMessagesAreReadStrictly(t *testing.T) {
	if c, err := decodeChecks([]byte(goodChecks)); err != nil || len(c.checks) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := decodeEvents([]byte(goodEvents)); err != nil || len(c.events) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	change := strings.NewReplacer
	for _, r := range []*strings.Replacer{
		change(`"check":"a"`, `"name":"a"`),
		change(`"check":"a"`, `"Check":"a"`),
		change(`"check":"a"`, `"check":""`),
		change(`"check":"a"`, `"check":null`),
		change(`"check":"a"`, `"check":"a","check":"a"`),
		change(`"check":"a"`, "\"check\":\"\xff\""),
		change(`"host_name":"",`, ``),
		change(`"host_name":"",`, `"host_name":"","more":1,`),
		change(`"timestamp":1`, `"timestamp":0`),
		change(`"status":3`, `"status":4`),
		change(`"status":3`, `"status":"3"`),
		change(`,"tags":null`, ``),
		change(`"tags":null`, `"tags":[]`),
		change(`null},`, `null}`),
		change(`"u"]}]`, `"u"]}] []`),
		change(goodChecks, `[]`),
	} {
		if _, err := decodeChecks([]byte(r.Replace(goodChecks))); err == nil {
			t.Errorf("accepted %s", r.Replace(goodChecks))
		}
	}
	for _, r := range []*strings.Replacer{
		change(`"apiKey":""`, `"apiKey":"k"`),
		change(`"apiKey":"",`, ``),
		change(`,"internalHostname":"h"`, ``),
		change(`"api":`, `"s":`),
		change(`"api":`, `"other":`),
		change(`"s":[`, `"api":[`),
		change(`"tags":["t"]`, `"tags":[]`),
		change(`"aggregation_key":"k"`, `"aggregation_key":""`),
		change(`"msg_text":"",`, ``),
		change(`"priority":"low"`, `"priority":"high"`),
		change(`"alert_type":"info"`, `"alert_type":""`),
		change(`"alert_type":"info"`, `"alert_type":"info","x":1`),
		change(`"source_type_name":"s"`, `"source_type_name":"s","event_type":"s"`),
		change(`"timestamp":1`, `"timestamp":1.5`),
		change(goodEvents, `{"apiKey":"","events":{},"internalHostname":"h"}`),
		change(goodEvents, `{"apiKey":"","events":{"api":[]},"internalHostname":"h"}`),
	} {
		if _, err := decodeEvents([]byte(r.Replace(goodEvents))); err == nil {
			t.Errorf("accepted %s", r.Replace(goodEvents))
		}
	}
}
