package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/rules"
)

// explainRules returns the treatment of identities by rules, which writes what each
// rule that concerns one makes of it.
func explainRules(out io.Writer, cfg rules.Config) func() aggregator.Treat {
	r := rules.New(cfg)
	return func() aggregator.Treat {
		s := r.NewSession()
		return func(id *metric.Identity, to *metric.Treatment) {
			fmt.Fprintf(out, "\nrules for %s\n", identityText(id))
			before, was := identityText(id), *to
			concerned := false
			s.OnRule = func(rule int, id *metric.Identity, to *metric.Treatment) {
				concerned = true
				fmt.Fprintf(out, "  rules[%d], match %q\n", rule, cfg.Rules[rule].Match)
				effects := treatmentTexts(&was, to)
				if after := identityText(id); after != before {
					effects, before = append(effects, "makes it "+after), after
				}
				if len(effects) == 0 {
					effects = []string{"changes nothing"}
				}
				if cfg.Rules[rule].Final {
					effects = append(effects, "no later rule is applied (final)")
				}
				for _, effect := range effects {
					fmt.Fprintf(out, "    %s\n", effect)
				}
				was = *to
			}
			s.Apply(id, to)
			if !concerned {
				fmt.Fprintln(out, "  none concerns it")
			}
		}
	}
}

func identityText(id *metric.Identity) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %q", id.Kind, id.Name)
	separator := ", tags "
	for _, tag := range id.Tags {
		fmt.Fprintf(&b, "%s%q", separator, tag)
		separator = " "
	}
	return b.String()
}

// treatmentTexts says what a rule changed about how samples count.
func treatmentTexts(was, is *metric.Treatment) (texts []string) {
	say := func(format string, args ...any) { texts = append(texts, fmt.Sprintf(format, args...)) }
	if is.Refused != was.Refused {
		say("its samples do not count: %v", is.Refused)
	}
	if is.Sample != was.Sample || is.BySelf != was.BySelf || is.SampledOut != was.SampledOut {
		share := strconv.FormatFloat(is.Sample, 'f', -1, 64)
		switch {
		case is.SampledOut:
			say("sampled out: by its tag it is none of the %s that count", share)
		case is.BySelf:
			say("sampled: by its tag it is one of the %s that count, and each value stands for %.4g", share, 1/is.Sample)
		default:
			say("sampled: each value counts with a chance of %s, and then stands for %.4g", share, 1/is.Sample)
		}
	}
	if p := is.Profile; p != was.Profile {
		if p.Aggregates != nil {
			say("aggregates %v", p.Aggregates)
		}
		if p.Percentiles != nil {
			say("percentiles %v", p.Percentiles)
		}
	}
	if b := is.Budget; b != was.Budget {
		if b.MaxContexts > 0 {
			say("counts for the rule's %d contexts at most", b.MaxContexts)
		}
		if b.Overflow != "" {
			say("beyond the bound: %s", b.Overflow)
		}
	}
	return texts
}
