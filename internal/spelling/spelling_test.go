package spelling

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"description", "status", "owner", "raw", "role", "required"}
	for word, want := range map[string]string{
		"descripton":  "description", // a letter less
		"statuss":     "status",      // one more
		"onwer":       "owner",       // two swapped
		"Role":        "role",
		"rwa":         "raw",
		"requierd":    "required",
		"anything":    "",
		"":            "",
		"descriptive": "description",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
