package parser

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unsafe"

	"github.com/weir-agent/weir/metric"
)

// powersOfTen are exact as float64 up to 1e22.
var powersOfTen = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10,
	1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

var wholePowersOfTen = [...]uint64{1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000}

// maxFastDigits is how many digits always fit into the 53 bits of a float64.
const maxFastDigits = 15

// number reads the common forms "12", "-3" and "0.25" at the start of b and
// returns the value and how many bytes it took. ok is false for every other
// form, valid or not.
//
// With at most 15 digits, digits and power of ten are exact, so that one
// division rounds correctly (Clinger, "How to read floating point numbers
// accurately", 1990): the result is the one strconv gives.
//
// Hot path: once per line.
func number(b []byte) (value float64, n int, ok bool) {
	if len(b) >= 16 {
		whole, n := digitsOf(b)
		if n > 0 && b[n] == '|' {
			return float64(whole), n, true
		}
		if n > 0 && b[n] == '.' {
			part, decimals := digitsOf(b[n+1:])
			if end := n + 1 + decimals; decimals > 0 && b[end] == '|' {
				return float64(whole*wholePowersOfTen[decimals]+part) / powersOfTen[decimals], end, true
			}
		}
	}
	return anyDigits(b)
}

// digitsOf reads the digits that b begins with, of which there must be 8 bytes: n is how
// many there are, and 0 if they are 8 or more.
//
// It looks at all of them at once, since a loop would end after another number of
// digits each time, which no processor foresees (BenchmarkPacket). In a word that was
// xored with eight zeros as text, the bytes beyond 9 are no digits. Those behind the
// digits are shifted out; what is left is the number with zeros before it, of which
// neighbours are added up, as pairs, fours and eights.
func digitsOf(b []byte) (value uint64, n int) {
	word := binary.LittleEndian.Uint64(b) ^ 0x3030303030303030
	others := (word + 0x7676767676767676 | word) & 0x8080808080808080
	n = bits.TrailingZeros64(others) >> 3
	if n == 0 || n == 8 {
		return 0, 0
	}
	word <<= 64 - 8*n
	word = word*10 + word>>8
	return (word&0x000000ff000000ff*(100+1_000_000<<32) + word>>16&0x000000ff000000ff*(1+10_000<<32)) >> 32, n
}

// anyDigits is number for all lengths.
func anyDigits(b []byte) (value float64, n int, ok bool) {
	i := 0
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		i = 1
	}
	var digits uint64
	start := i
	for i < len(b) && b[i]-'0' <= 9 {
		digits = digits*10 + uint64(b[i]-'0')
		i++
	}
	count, decimals := i-start, 0
	if i < len(b) && b[i] == '.' {
		i++
		fraction := i
		for i < len(b) && b[i]-'0' <= 9 {
			digits = digits*10 + uint64(b[i]-'0')
			i++
		}
		decimals = i - fraction
		count += decimals
	}
	if count == 0 || count > maxFastDigits {
		return 0, 0, false
	}
	value = float64(digits)
	if decimals > 0 {
		value /= powersOfTen[decimals]
	}
	if negative && digits > 0 { // there is no -0 in a Sample
		value = -value
	}
	return value, i, true
}

// statsdNumber is anyNumber for the statsd dialect, which takes what JavaScript
// does: blanks around a number, and whole numbers with the prefixes 0x, 0o and 0b.
func statsdNumber(b []byte) (float64, metric.Reason) {
	b = bytes.TrimSpace(b)
	if bytes.IndexByte(b, '_') >= 0 { // which Go takes behind a leading 0
		return 0, metric.BadValue
	}
	value, why := anyNumber(b)
	if why == metric.BadValue && len(b) > 2 && b[0] == '0' {
		if n, err := strconv.ParseUint(string(b), 0, 64); err == nil {
			return float64(n), metric.Accepted
		}
	}
	return value, why
}

// anyNumber reads all of b as a number in any form that strconv.ParseFloat
// takes, as the Datadog Agent does, and rejects what is not finite.
func anyNumber(b []byte) (float64, metric.Reason) {
	if value, n, ok := number(b); ok && n == len(b) {
		return value, metric.Accepted
	}
	value, err := parseFloat(b)
	if err != nil {
		return 0, metric.BadValue
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return 0, metric.ValueNotFinite
	}
	if value == 0 {
		value = 0 // -0
	}
	return value, metric.Accepted
}

// parseFloat is strconv.ParseFloat without the copy into a string. The string
// does not outlive the call on success; on failure the error keeps a clone that
// strconv makes.
func parseFloat(b []byte) (float64, error) {
	return strconv.ParseFloat(unsafe.String(unsafe.SliceData(b), len(b)), 64)
}
