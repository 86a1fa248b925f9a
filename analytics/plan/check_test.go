package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// describe reads a line as the agent does.
func describe(t testing.TB, line string, id *metric.Identity) (name []byte) {
	t.Helper()
	p := parser.New(parser.DefaultConfig())
	var lines metric.Lines
	p.Packet([]byte(line), false, &lines)
	if len(lines.Samples) != 1 {
		t.Fatalf("%s is not one sample: %v", line, lines.Rejected)
	}
	if why := p.Describe(&lines.Samples[0], id); why != metric.Accepted {
		t.Fatalf("%s is rejected: %v", line, why)
	}
	cut, ok := strings.CutPrefix(string(id.Name), "analytics.")
	if !ok {
		t.Fatalf("%s is no event", line)
	}
	return []byte(cut)
}

func check(t testing.TB, p *Plan, line string) *Result {
	t.Helper()
	var id metric.Identity
	var r Result
	name := describe(t, line, &id)
	p.Check(name, &id, &r)
	return &r
}

// String writes a result as tests state it.
func (r *Result) String() string {
	var b strings.Builder
	b.WriteString(r.Verdict.String())
	for o := range r.Outcomes {
		b.WriteString(" " + o.String())
	}
	for i := range r.Values {
		if v := &r.Values[i]; !v.Null() {
			fmt.Fprintf(&b, " %s=%s", r.Event.Attributes[i].Name, v.Text)
		}
	}
	for _, x := range r.Extra {
		fmt.Fprintf(&b, " +%s=%s", x.Key, x.Value)
		if x.Identity {
			b.WriteString("!")
		}
	}
	for _, x := range r.Context {
		fmt.Fprintf(&b, " ~%s=%s", x.Key, x.Value)
	}
	return b.String()
}

func TestCheck(t *testing.T) {
	options := DefaultOptions()
	warn := load(t, "testdata/check", options)
	options.Mode = Strict
	strict := load(t, "testdata/check", options)

	const paid = "analytics.order.paid:1|c|#user_id:7,card:4111"
	same := ""
	for _, test := range []struct{ line, warn, strict string }{
		{paid, "count ok user_id=7", same},
		{"analytics.order.payed:1|c|#user_id:7", "unplanned unplanned_event", "refuse unplanned_event"},
		{"analytics.cart.emptied:1|c", "refuse removed_event", same},
		{"analytics.order.paid:1|g|#user_id:7,card:1", "refuse not_a_counter user_id=7", same},
		{"analytics.order.paid:1|c|#card:1", "count required_missing", "refuse required_missing"},
		{"analytics.order.paid:1|c|#user_id:,card:1", "count required_missing", "refuse required_missing"},
		{"analytics.order.paid:1|c|#user_id,card:1", "count required_missing", "refuse required_missing"},
		{"analytics.order.paid:1|c|#user_id:7", "count required_missing user_id=7", "refuse required_missing user_id=7"},

		// Types, each with its canonical form.
		{paid + ",items:007", "count ok user_id=7 items=7", same},
		{paid + ",items:+7", "count ok user_id=7 items=7", same},
		{paid + ",items:-0", "count ok user_id=7 items=0", same},
		{paid + ",items:7.0", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{paid + ",items:9223372036854775808", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{paid + ",amount:12.50", "count ok user_id=7 amount=12.5", same},
		{paid + ",amount:-0", "count ok user_id=7 amount=0", same},
		{paid + ",amount:NaN", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{paid + ",amount:0x1p3", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{paid + ",gift:True", "count ok user_id=7 gift=true", same},
		{paid + ",gift:0", "count ok user_id=7 gift=false", same},
		{paid + ",gift:yes", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{paid + ",plan:pro", "count ok user_id=7 plan=pro", same},
		{paid + ",plan:gold", "count not_in_enum user_id=7 plan=other", "refuse not_in_enum user_id=7 plan=other"},
		{paid + ",note:longer", "count too_long user_id=7 note=longe", "refuse too_long user_id=7 note=longe"},
		{paid + ",note:äöü", "count too_long user_id=7 note=äö", "refuse too_long user_id=7 note=äö"},
		{paid + ",note:\xff", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{paid + ",session:longer", "count too_long user_id=7", "refuse too_long user_id=7"}, // its beginning would be another's
		{paid + ",placed_at:1795212000", "count ok user_id=7 placed_at=2026-11-20T22:00:00.000Z", same},
		{paid + ",placed_at:1795212000.25", "count ok user_id=7 placed_at=2026-11-20T22:00:00.250Z", same},
		{paid + ",placed_at:1795212000250", "count ok user_id=7 placed_at=2026-11-20T22:00:00.250Z", same},
		{paid + ",placed_at:2026-11-20T23:00:00+01:00", "count ok user_id=7 placed_at=2026-11-20T22:00:00.000Z", same},
		{paid + ",placed_at:99999999999999999", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{paid + ",placed_at:soon", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},

		// Escapes.
		{paid + ",note:" + Escape("a,b|c"), "count ok user_id=7 note=a,b|c", same},
		{paid + ",note:b64.a", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{"analytics.order.paid:1|c|#user_id:b64.Nw,card:b64.", "count required_missing user_id=7", "refuse required_missing user_id=7"},

		// Tags that are no attributes.
		{paid + ",env:prod,service:shop", "count ok user_id=7 ~env=prod ~service=shop", same},
		{paid + ",colour:red", "count additional_properties user_id=7", "refuse additional_properties user_id=7"},
		{paid + ",,", "count ok user_id=7", same},
		{paid + ",_private:1", "count additional_properties user_id=7", "refuse additional_properties user_id=7"},
		{"analytics.door.opened:1|c|#colour:red", "refuse additional_properties", same},
		{"analytics.order.paid:1|c|#user_id:7,user_id:8,card:1", "count ok user_id=7", same},
		{"analytics.order.paid:1|c|#user_id:x,user_id:8,card:1", "count datatype_mismatch", "refuse datatype_mismatch"},

		// Consent, before all else.
		{"analytics.cart.filled:1|c|#size:1", "deny consent_denied", same},
		{"analytics.cart.filled:1|c|#size:x,colour:red,_consent:analytics", "deny consent_denied", same},
		{"analytics.cart.filled:1|c|#size:1,_consent:ads+analytics", "count ok size=1", same},
		{"analytics.cart.filled:1|c|#size:1,_consent:an+ad", "count ok size=1", same},
		{"analytics.cart.filled:1|c|#size:1,_consent:a+ads", "deny consent_denied", same}, // a is two categories
		{"analytics.cart.filled:1|c|#size:1,_consent:analyticsx+ads", "deny consent_denied", same},
		{
			"analytics.cart.filled:1|c|#_consent:ads+analytics,colour:red,owner_id:7",
			"count additional_properties +colour=red +owner_id=7!", "count additional_properties +colour=red +owner_id=7!",
		},

		// Reserved tags.
		{paid + ",_anon:1", "count ok", same},
		{"analytics.order.paid:1|c|#_anon:true,card:1", "count ok", same},
		{
			"analytics.cart.filled:1|c|#_consent:ads+analytics,owner_id:7,colour:red,_anon:1",
			"count additional_properties +colour=red", "count additional_properties +colour=red",
		},
		{paid + ",_v:2-7-1", "count ok user_id=7", same},
		{paid + ",_v:1-0-0", "count version_mismatch user_id=7", "refuse version_mismatch user_id=7"},
		{paid + ",_v:2-0", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{paid + ",_v:two", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},
		{paid + ",_ts:now", "count datatype_mismatch user_id=7", "refuse datatype_mismatch user_id=7"},

		// A sample of the events is no sample of those who caused them.
		{"analytics.order.paid:1|c|@0.5|#user_id:7,card:1", "count sampled_unique user_id=7", "refuse sampled_unique user_id=7"},
		{"analytics.door.opened:1|c|@0.5", "count ok", same},
	} {
		t.Run(test.line, func(t *testing.T) {
			if got := check(t, warn, test.line).String(); got != test.warn {
				t.Errorf("warn: %s\nwant: %s", got, test.warn)
			}
			want := test.strict
			if want == same {
				want = test.warn
			}
			if got := check(t, strict, test.line).String(); got != want {
				t.Errorf("strict: %s\nwant: %s", got, want)
			}
		})
	}
}

func TestCheckReadsReservedTags(t *testing.T) {
	p := load(t, "testdata/check", DefaultOptions())
	r := check(t, p, "analytics.order.paid:1|c|#user_id:1,card:1,_id:0192f3,_v:2-3-4,_consent:a+m,_ts:1795212000250|T1795212001")
	if string(r.ID) != "0192f3" || r.Version != (Version{2, 3, 4}) || string(r.Consent) != "a+m" || r.Time != 1795212000250 {
		t.Errorf("got %s %v %s %d", r.ID, r.Version, r.Consent, r.Time)
	}
	r = check(t, p, "analytics.order.paid:1|c|#user_id:1,card:1|T1795212001")
	if r.ID != nil || r.Version != (Version{2, 1, 0}) || r.Time != 1795212001000 {
		t.Errorf("got %s %v %d", r.ID, r.Version, r.Time)
	}
}

// What is not collected leaves no trace, not even of what else was wrong.
func TestCheckOfDataThatIsNotCollected(t *testing.T) {
	options := DefaultOptions()
	options.Collected = []DataCategory{Operational}
	p := load(t, "testdata/check", options)
	if got := check(t, p, "analytics.order.paid:1|c|#user_id:x,colour:red").String(); got != "deny consent_denied" {
		t.Errorf("got %s", got)
	}
	if got := check(t, p, "analytics.door.opened:1|c").String(); got != "count ok" {
		t.Errorf("got %s", got)
	}
}

// Every violation is explained with the attribute's name or the tag's.
// A datagram full of tags that nobody declared takes no more than any other.
func TestManyFaultsAreNotKept(t *testing.T) {
	p := load(t, "testdata/check", DefaultOptions())
	r := check(t, p, "analytics.order.paid:1|c|#"+strings.Repeat("k"+strings.Repeat("e", 200)+",", 250)+strings.Repeat("card:,", 100)+"user_id:7")
	if got := r.String(); got != "count required_missing additional_properties user_id=7" {
		t.Errorf("it is %s", got)
	}
	if len(r.Violations) > maxUndeclared+2*maxAttributes {
		t.Errorf("%d faults are kept", len(r.Violations))
	}
	for _, v := range r.Violations {
		if text := r.Explain(v); len(text) > 200 {
			t.Errorf("%d bytes say %s", len(text), text)
		}
	}
}

func TestExplain(t *testing.T) {
	p := load(t, "testdata/check", DefaultOptions())
	r := check(t, p, "analytics.order.paid:1|c|@0.5|#amount:x,plan:gold,note:longer,clour:1,itms:2,_v:1-0-0,_ts:x")
	var all []string
	for _, v := range r.Violations {
		all = append(all, v.Outcome.String()+": "+r.Explain(v))
	}
	got := strings.Join(all, "\n")
	want := `datatype_mismatch: amount is not a number
not_in_enum: plan is not one of free, pro; it counts as other
too_long: note is longer than 5 bytes (max_length)
additional_properties: clour is not declared
additional_properties: itms is not declared; did you mean items?
version_mismatch: it was made for version 1-0-0, and the definition has version 2-1-0
datatype_mismatch: _ts cannot be read; write Unix milliseconds or an escaped time of RFC 3339
required_missing: user_id is required and absent or empty; send it
required_missing: card is required and absent or empty; send it
sampled_unique: it is sampled (@), and who did it cannot be counted from a sample; send it without a rate`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	p := load(t, "testdata/check", DefaultOptions())
	var r Result
	for _, line := range []string{
		"analytics.order.paid:1|c|#user_id:007,amount:1.50,items:3,gift:True,plan:gold,note:b64.YSxi,card:1,placed_at:1795212000,env:prod,_v:2-1-0,_id:x,_ts:1795212000250",
		"analytics.order.paid:1|c|@0.5|#plan:gold,colour:red",
		"analytics.cart.filled:1|c|#size:1,colour:red,_consent:analytics+ads",
		"analytics.cart.flled:1|c|#size:1,colour:red",
	} {
		var id metric.Identity
		name := describe(t, line, &id)
		if n := testing.AllocsPerRun(100, func() { p.Check(name, &id, &r) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", line, n)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	p, err := Load("testdata/check", DefaultOptions())
	if err != nil {
		b.Fatal(err)
	}
	var id metric.Identity
	var r Result
	name := describe(b, "analytics.order.paid:1|c|#user_id:7,amount:1.5,items:3,plan:pro,card:1,env:prod", &id)
	b.ReportAllocs()
	for b.Loop() {
		p.Check(name, &id, &r)
	}
}

// FuzzCheck: whatever the tags, values are canonical (reading them again changes
// nothing), a verdict other than count has a reason, and nothing is left of what may
// not be collected.
func FuzzCheck(f *testing.F) {
	f.Add("order.paid", "user_id:7,card:1,amount:1e3,placed_at:1795212000,note:b64.YQ", true)
	f.Add("cart.filled", "_consent:a+ads,_anon:1,size", false)
	options := DefaultOptions()
	warn, err := Load("testdata/check", options)
	if err != nil {
		f.Fatal(err)
	}
	options.Mode = Strict
	strict, err := Load("testdata/check", options)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, tags string, isStrict bool) {
		p := warn
		if isStrict {
			p = strict
		}
		id := metric.Identity{Kind: metric.Counter, Rate: 1}
		for tag := range strings.SplitSeq(tags, ",") {
			id.Tags = append(id.Tags, []byte(tag))
		}
		var r Result
		p.Check([]byte(name), &id, &r)
		if r.Verdict != Count && r.Has(OK) || isStrict && r.Verdict == Count && r.Event.Additional != AdditionalKeep && !r.Has(OK) {
			t.Errorf("got %s", &r)
		}
		if r.Verdict == Deny && (len(r.Extra) > 0 || len(r.Violations) != 1) {
			t.Errorf("something is left: %s", &r)
		}
		for i := range r.Values {
			v := r.Values[i]
			if v.Null() || string(v.Text) == Other {
				continue
			}
			if r.Verdict == Deny {
				t.Errorf("something is left: %s", &r)
			}
			var again Value
			a := &r.Event.Attributes[i]
			if o := a.parse(v.Text, &again, nil); o != OK || string(again.Text) != string(v.Text) || again.Int != v.Int || again.Float != v.Float {
				t.Errorf("%s: %q is read as %q (%v)", a.Name, v.Text, again.Text, o)
			}
		}
	})
}
