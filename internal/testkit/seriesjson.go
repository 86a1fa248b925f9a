package testkit

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// decodeSeriesJSON reads series in the form that Datadog's public interface documents.
// It understands them as decodeSeriesPayload does: an origin's metric_type is its
// category.
func decodeSeriesJSON(raw []byte) (c content, err error) {
	if err := checkJSON(raw); err != nil {
		return c, err
	}
	var all []json.RawMessage
	if err := decodeObject(raw, map[string]member{"series": {into: &all}}); err != nil {
		return c, err
	}
	for _, one := range all {
		p, err := decodeOneSeries(one)
		if err != nil {
			return c, err
		}
		c.points = append(c.points, p)
	}
	if len(all) == 0 {
		return c, errors.New("there is no series")
	}
	return c, nil
}

func decodeOneSeries(raw []byte) (p Point, err error) {
	var points, resources []json.RawMessage
	var metadata, origin json.RawMessage
	var kind int
	if err := decodeObject(raw, map[string]member{
		"metric": {into: &p.Metric}, "type": {into: &kind}, "points": {into: &points}, "interval": {into: &p.Interval},
		"metadata":  {into: &metadata},
		"resources": {into: &resources, optional: true},
		"tags":      {into: &p.Tags, optional: true},
		"unit":      {into: &p.Unit, optional: true},
	}); err != nil {
		return p, err
	}
	if err := decodeObject(metadata, map[string]member{"origin": {into: &origin}}); err != nil {
		return p, err
	}
	if err := decodeObject(origin, map[string]member{
		"product": {into: &p.Origin[0]}, "metric_type": {into: &p.Origin[1]}, "service": {into: &p.Origin[2], optional: true},
	}); err != nil {
		return p, err
	}
	for _, r := range resources {
		if err := decodeResourceObject(r, &p); err != nil {
			return p, err
		}
	}
	types := [...]string{"", "count", "rate", "gauge"}
	if len(points) != 1 || p.Metric == "" || kind < 1 || kind >= len(types) {
		return p, fmt.Errorf("a series that makes no sense: %.200s", raw)
	}
	p.Type = types[kind]
	if err := decodeObject(points[0], map[string]member{"timestamp": {into: &p.Time}, "value": {into: &p.Value}}); err != nil {
		return p, err
	}
	if p.Time == 0 || math.IsNaN(p.Value) || math.IsInf(p.Value, 0) {
		return p, fmt.Errorf("a point that makes no sense: %.200s", raw)
	}
	slices.Sort(p.Tags)
	return p, nil
}

func decodeResourceObject(raw []byte, p *Point) error {
	var r Resource
	if err := decodeObject(raw, map[string]member{"type": {into: &r.Type}, "name": {into: &r.Name}}); err != nil {
		return err
	}
	switch {
	case r.Type == "" || r.Name == "":
		return fmt.Errorf("a resource of type %q named %q", r.Type, r.Name)
	case r.Type == "host" && p.Host == "":
		p.Host = r.Name
	case r.Type == "device" && p.Device == "":
		p.Device = r.Name
	default:
		p.Resources = append(p.Resources, r)
	}
	return nil
}
