package metric

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size as the configuration writes it: "4MiB", "8KiB", "512B".
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{
	// Longer names first: "B" ends all of them.
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// ParseBytes reads a number with a unit: B, KB, MB, GB, TB (powers of 1000) or
// KiB, MiB, GiB, TiB (powers of 1024), in any case. A bare 0 is accepted too.
func ParseBytes(text string) (Bytes, error) {
	trimmed := strings.TrimSpace(text)
	if trimmed == "0" {
		return 0, nil
	}
	for _, unit := range byteUnits {
		digits, found := cutSuffixFold(trimmed, unit.name)
		if !found {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || n < 0 || n*float64(unit.size) >= math.MaxInt64 || math.IsNaN(n) {
			break
		}
		return Bytes(n * float64(unit.size)), nil
	}
	return 0, fmt.Errorf("%q is not a size; write a number with a unit, such as 4MiB or 512KiB", text)
}

func cutSuffixFold(text, suffix string) (string, bool) {
	at := len(text) - len(suffix)
	if at < 0 || !strings.EqualFold(text[at:], suffix) {
		return "", false
	}
	return text[:at], true
}

// String writes the size in the largest binary unit that divides it.
func (b Bytes) String() string {
	for _, unit := range []struct {
		name string
		size Bytes
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if b != 0 && b%unit.size == 0 {
			return strconv.FormatInt(int64(b/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}
