package parser

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Digits that are read all at once are read as one by one, whatever is behind them.
func TestDigitsAtOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const characters = "0123456789012345678901234567890123456789..||-+/:;e\x00\x80\xb0\xff"
	for range 300_000 {
		var text []byte
		for range random.IntN(20) {
			text = append(text, characters[random.IntN(len(characters))])
		}
		text = fmt.Appendf(text, "%d|c|#environment:test", random.IntN(1000))
		value, n, ok := number(text)
		if want, wantN, wantOK := anyDigits(text); value != want || n != wantN || ok != wantOK {
			t.Fatalf("%q: got %v in %d bytes (%v), want %v in %d (%v)", text, value, n, ok, want, wantN, wantOK)
		}
	}
}
