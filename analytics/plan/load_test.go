package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func load(t *testing.T, dir string, options Options) *Plan {
	t.Helper()
	p, err := Load(dir, options)
	if err != nil {
		t.Fatalf("Load(%s):\n%v", dir, err)
	}
	return p
}

func TestLoadReadsWhatIsDefined(t *testing.T) {
	p := load(t, "testdata/sound", DefaultOptions())
	e := p.Event("order.paid")
	if e == nil || len(p.Events) != 2 {
		t.Fatalf("events: %v", p.Events)
	}
	want := []Attribute{
		{Name: "user_id", Type: Int, Required: true, Role: Identity, Identity: "user.id", Privacy: Privacy{Kind: HMAC}, MaxLength: 200},
		{Name: "email", Type: String, Role: Identity, Identity: "email", Privacy: Privacy{Kind: Truncate, Length: 3}, MaxLength: 200},
		{Name: "ip", Type: String, Role: Identity, Identity: "ip", Privacy: Privacy{Kind: TruncateIP, V4: 24, V6: 48}, MaxLength: 200},
		{Name: "amount", Type: Float, Role: Number, Privacy: Privacy{Kind: None}, MaxLength: 200}, // a metric adds it up
		{Name: "items", Type: Int, Role: Number, Privacy: Privacy{Kind: None}, MaxLength: 200},
		{Name: "gift", Type: Bool, Role: Tag, Privacy: Privacy{Kind: None}, MaxLength: 200},
		{Name: "note", Type: String, Role: RawOnly, Privacy: Privacy{Kind: None}, MaxLength: 10},
		{Name: "card", Type: String, Role: Drop, Privacy: Privacy{Kind: None}, MaxLength: 200},
		{Name: "placed_at", Type: Timestamp, Role: RawOnly, Privacy: Privacy{Kind: None}, MaxLength: 200},
	}
	got := append([]Attribute(nil), e.Attributes...)
	for i := range got {
		got[i].explicitRole, got[i].explicitPrivacy = false, false
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Attribute{})); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if e.Mode != Strict || e.Version != (Version{2, 1, 0}) || e.Counter != (Counter{true, "order.paid"}) || e.Raw != (Raw{SinkEvents, 1}) {
		t.Errorf("order.paid is %+v", e)
	}
	m := p.Metric("usage.orders.turnover")
	if m == nil || m.Window != Calendar || m.Emit != (Emit{true, Fleet}) || m.Rules[0].Key() != `order.paid[gift="true",items="1"] sum amount` {
		t.Errorf("turnover is %+v", m)
	}
	m = p.Metric("usage.teams.users")
	if m == nil || !m.Unique() || len(m.Rules) != 2 || m.Gauge(Frame7d) != "usage.teams.users.7d" ||
		m.Rules[0].Key() != `team.created[plan="pro"] unique user_id as user.id` {
		t.Errorf("users is %+v", m)
	}
}
