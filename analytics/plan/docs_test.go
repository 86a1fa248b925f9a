package plan

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/ANALYTICS.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The manual names every key, every word and every outcome there is.
func TestManualNamesAll(t *testing.T) {
	text := manual(t)
	words := slices.Concat(eventKeys, attributeKeys, metricKeys, ruleKeys, emitKeys, counterKeys, rawKeys, types, roles, modes,
		eventStates, metricStates, DataCategories, additionals, timeFrames, windows, operators, scopes, outcomeNames[:],
		[]string{"hmac", "truncate(8)", "truncate(ip24/48)", "sum(seats)", "_id", "_ts", "_v", "_consent", "_anon"})
	for _, c := range Columns {
		words = append(words, c.Name)
	}
	for _, word := range words {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("docs/ANALYTICS.md does not name `%s`", word)
		}
	}
	for _, limit := range []int{
		maxFiles, maxFile >> 10, maxFaults, maxEventName, maxKeyPath, maxName, maxText, maxProse, maxAttributes, maxValues, maxLength,
		maxConsent, maxRules, defaultLength, minDescription, maxTagSets, maxImportFiles,
	} {
		shown := fmt.Sprint(limit)
		if len(shown) > 3 {
			shown = shown[:len(shown)-3] + "," + shown[len(shown)-3:]
		}
		if !regexp.MustCompile(`(^|[^0-9,])` + shown + `($|[^0-9,]|,[^0-9])`).MatchString(text) {
			t.Errorf("docs/ANALYTICS.md does not name the limit %s", shown)
		}
	}
}

// The manual's examples are sound.
func TestManualExamples(t *testing.T) {
	var files []File
	for _, m := range regexp.MustCompile("(?s)```yaml\n# ([a-z/._]+)\n(.*?)```").FindAllStringSubmatch(manual(t), -1) {
		files = append(files, File{m[1], []byte(m[2])})
	}
	p := asFolder(t, files)
	if len(p.Events) != 1 || len(p.Metrics) != 2 {
		t.Errorf("%d events and %d metrics, want 1 and 2", len(p.Events), len(p.Metrics))
	}
	for _, finding := range p.Lint() {
		t.Errorf("%v", finding)
	}
	line := regexp.MustCompile(`(?m)^    (analytics\..*)$`).FindStringSubmatch(manual(t))
	if got, want := check(t, p, line[1]).String(), "count ok user_id=1 organization_id=2 plan=pro"; got != want {
		t.Errorf("%s\ngot:  %s\nwant: %s", line[1], got, want)
	}
}
