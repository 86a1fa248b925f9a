package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExplainCommand(t *testing.T) {
	binary := build(t)
	file := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(file, []byte("namespace: shop\nhostname: web-1\ntags: [env:prod]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte(`hostname: web-1
rules:
  - {match: "debug.*", drop: true}
  - {match: "*", drop_tags: [request_id]}
  - {match: "airflow.*.duration.*", name: airflow, tags: ["dag:$1", "task:$2"], aggregates: [sum], percentiles: [], final: true}
  - {match: x, sample: 0.000001, max_contexts: 10}
  - {match: x, sample: 0.000001, sample_by: user}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		arguments []string
		code      int
		want      []string
	}{
		"a metric": {
			arguments: []string{"page.views:3|c|@0.5|#b,a"},
			want: []string{
				"  page.views:3|c|@0.5|#b,a\n  ~~~~~~~~~~ name\n             ~ value 3\n",
				"each stands for 2", `counter "shop.page.views", host "web-1", tags "a" "b" "env:prod"`,
				"rate shop.page.views 0.6 host=web-1 a b env:prod\n",
			},
		},
		"a fault": {
			arguments: []string{"page.views:3x|c"}, code: 1,
			want: []string{"  page.views:3x|c\n", "             ^\nrejected at byte 12: bad_value: it is no number", "nothing would be sent", "1 of 1 lines would not count"},
		},
		"bytes that do not print": {
			arguments: []string{"a\x01\xff:x|c"}, code: 1,
			want: []string{"  a\\x01\\xff:x|c\n", "            ^\nrejected at byte 5"},
		},
		"a dialect": {
			arguments: []string{"--dialect", "statsd", "load:+3|g:7|ms"},
			want:      []string{"dialect statsd", "holds 2 metrics", "with a sign: for a gauge it is a change", "gauge shop.load 3 ", "shop.load.95percentile 7 "},
		},
		"a refusal":       {arguments: []string{"weir.x:1|c"}, code: 1, want: []string{"refused: reserved_name", "nothing would be sent"}},
		"an ignored time": {arguments: []string{"a:1|h|T1700000000"}, want: []string{"the time is ignored", "shop.a.max 1 "}},
		"a time":          {arguments: []string{"a:1|g|T1700000000"}, want: []string{"2023-11-14T22:13:20Z gauge shop.a 1 "}},
		"an event":        {arguments: []string{"_e{1,2}:a|bc|#x"}, want: []string{"title of 1 bytes, text of 2", "event a: bc", "x\n"}},
		"several":         {arguments: []string{"a:1|c", "a:1|c|#"}, want: []string{"rate shop.a 0.1 host=web-1 env:prod\n"}},
		"lines":           {arguments: []string{"a:5|g\n\na:-7|g"}, want: []string{"  a:5|g\n", "  a:-7|g\n", "gauge shop.a -7 "}},
		"too large":       {arguments: []string{"a:1e308|c|@0.01"}, code: 1, want: []string{"not sent: ", "nothing would be sent"}},
		"too many": {
			arguments: []string{"--dialect", "statsd", "a:1|c" + strings.Repeat(":1|c", 200)}, code: 1,
			want: []string{"too_many_metrics", "rate shop.a 12.8 "},
		},
		"nothing": {arguments: []string{""}, want: []string{"an empty line is nothing"}},
		"rules": {
			arguments: []string{"--config", rules, "airflow.d.duration.t:1|ms|#request_id:1,a"},
			want: []string{
				`rules for timer "airflow.d.duration.t", tags "request_id:1" "a"` + "\n",
				`  rules[1], match "*"` + "\n" + `    makes it timer "airflow.d.duration.t", tags "a"` + "\n" +
					`  rules[2], match "airflow.*.duration.*"` + "\n" + `    aggregates [sum]` + "\n" + `    percentiles []` + "\n" +
					`    makes it timer "airflow", tags "a" "dag:d" "task:t"` + "\n" + "    no later rule is applied (final)\n",
				"gauge airflow.sum 1 host=web-1 a dag:d task:t",
			},
		},
		"a rule that drops": {
			arguments: []string{"--config", rules, "debug.x:1|c"}, code: 1,
			want: []string{"rules[0], match \"debug.*\"\n    its samples do not count: dropped_by_rule\n", "refused: dropped_by_rule", "nothing would be sent"},
		},
		"rules that sample": {
			arguments: []string{"--config", rules, "x:1|d|#user:1"},
			want: []string{
				"rules[3], match \"x\"\n    sampled: each value counts with a chance of 0.000001, and then stands for 1e+06\n    counts for the rule's 10 contexts at most",
				"rules[4], match \"x\"\n    sampled out: by its tag it is none of the 0.000001 that count", "sampled out, this time: 1 of 1",
			},
		},
		"no rule for it":   {arguments: []string{"--config", rules, "y:1|c"}, want: []string{"rules[1], match \"*\"\n    changes nothing\n"}},
		"an unknown style": {arguments: []string{"--tag-style", "x", "a:1|c"}, code: 1, want: []string{`tag_style: there is no style "x"`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := execute(t, binary, nil, append([]string{"explain", "--config", file}, test.arguments...)...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, want := range test.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("no %q in\n%s%s", want, stdout, stderr)
				}
			}
			if stdout != "" && !strings.HasSuffix(stdout, "\n") {
				t.Errorf("the output does not end in a newline: %q", stdout)
			}
		})
	}
}
