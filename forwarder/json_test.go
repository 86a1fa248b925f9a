package forwarder

import (
	"encoding/json"
	"math"
	"testing"
)

func FuzzJSONString(f *testing.F) {
	for _, s := range []string{"", "plain", "quo\"te", "back\\slash", "\x00\x1f\x7f", "\xff\xfe", "\u2028\u2029", "♬†øU", "\xe2\x28\xa1", "tail\xc3"} {
		f.Add(s, ".avg")
	}
	f.Fuzz(func(t *testing.T, s, more string) {
		encoded := appendJSONString(nil, s, more)
		var got string
		if err := json.Unmarshal(encoded, &got); err != nil {
			t.Fatalf("%q is encoded as %s: %v", s+more, encoded, err)
		}
		var want string
		for _, part := range []string{s, more} {
			text, err := json.Marshal(part)
			if err != nil {
				t.Fatal(err)
			}
			var decoded string
			if err := json.Unmarshal(text, &decoded); err != nil {
				t.Fatal(err)
			}
			want += decoded
		}
		if got != want {
			t.Errorf("%q is read back as %q, want %q", s+more, got, want)
		}
	})
}

func FuzzJSONNumber(f *testing.F) {
	for _, v := range []float64{0, 1, -1.5, 1e21, 1e-7, math.MaxFloat64, math.SmallestNonzeroFloat64, 123456789.125} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v float64) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return
		}
		var got float64
		if err := json.Unmarshal(appendJSONNumber(nil, v), &got); err != nil || got != v {
			t.Errorf("%v is read back as %v, %v", v, got, err)
		}
	})
}
