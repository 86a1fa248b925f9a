package raw

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"slices"
)

// compressor makes a gzip stream (RFC 1951, 1952) of rows.
//
// A compressor for anything looks for repetitions everywhere, and counts symbols before
// it writes them. Rows repeat each other in places that are known: a row is made of
// parts, and most of them are those that the row of the same shape before it has. So a
// part is compared with the one in its place there, and with the last one that began
// alike; what is equal becomes a reference, and what is left are mostly pseudonyms,
// which nothing makes shorter than six bits a letter. So one table of codes does for all
// files (BenchmarkCompress).
//
// Parts are hints: whatever they are, what comes out of it is what went in.
type compressor struct {
	out    []byte // compressed
	acc    uint64 // bits that are no whole byte yet, the lowest first
	used   uint   // bits of acc; less than 8 between calls
	open   bool   // a block is
	window []byte // text that may be referred to, or is not summed
	origin int    // place of window in all text
	summed int    // bytes of window that are in sum
	sum    uint32
	length uint32 // of what is in sum, modulo 2^32

	pending repetition
	recent  [rowShapes]shapedRow
	lately  [rememberedParts]int // where a part that began so was, and 1
}

// repetition is text that is as it was some bytes back.
type repetition struct{ back, length int }

// shapedRow is a row that others may be like.
type shapedRow struct {
	at    int // its place in all text
	parts []part
}

// part is a piece of a row, behind the one before it.
type part struct {
	end    int32 // in the row
	opaque bool  // it is like another one as a whole or not at all
}

const (
	rowShapes       = 64
	rememberedParts = 1024
	// shortestPart is how long a part must be to be remembered.
	shortestPart = 8

	maxBack       = 1 << 15
	maxRepetition = 258
	minRepetition = 3
	// windowBytes is how much text is kept before what cannot be referred to any more
	// is given up.
	windowBytes = 8 * maxBack
	// roomBytes is how long most rows are not.
	roomBytes = 16 << 10
	// rowOverhead bounds what a row takes in out besides two bytes for each of its own.
	rowOverhead = 256
)

// gzipHeader says: deflate, no name, no time, fast, of no particular system.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255}

func newCompressor() *compressor {
	return &compressor{out: slices.Clone(gzipHeader), window: make([]byte, 0, windowBytes)}
}

// add compresses a row that is made of parts, of which the last one ends with it. Rows of
// one shape are much alike.
func (c *compressor) add(row []byte, parts []part, shape uint32) {
	c.compress(append(c.room(), row...), parts, shape)
}

// room returns the text to which the next row is to be appended, for compress.
func (c *compressor) room() []byte {
	if len(c.window) > windowBytes-roomBytes {
		c.slide()
	}
	return c.window
}

// compress compresses the row that was appended to what room returned.
//
// Once per row; it allocates nothing once out is large enough
// (TestCompressDoesNotAllocate).
func (c *compressor) compress(window []byte, parts []part, shape uint32) {
	start := len(c.window)
	c.window = window
	c.out = slices.Grow(c.out, 2*(len(window)-start)+rowOverhead)
	if !c.open {
		c.begin()
	}
	like := &c.recent[shape%rowShapes]
	likeStart := like.at - c.origin
	alike := likeStart >= 0 && len(like.parts) == len(parts)
	at, old := start, likeStart
	for i, p := range parts {
		to, oldTo := start+int(p.end), 0
		if alike {
			oldTo = likeStart + int(like.parts[i].end)
		}
		switch {
		case alike && at-old <= maxBack && string(window[at:to]) == string(window[old:oldTo]):
			c.repeat(at, at-old, to-at)
		case to-at >= shortestPart && c.recall(at, to):
		case alike && !p.opaque:
			c.differ(at, to, old, oldTo)
		default:
			c.letters(at, to)
		}
		at, old = to, oldTo
	}
	like.at, like.parts = c.origin+start, append(like.parts[:0], parts...)
}

// recall repeats the last part that began like the one from at to to, if all of it is
// the same.
func (c *compressor) recall(at, to int) bool {
	last := &c.lately[binary.LittleEndian.Uint64(c.window[at:])*0x9e3779b97f4a7c15>>54]
	old := *last - 1 - c.origin
	*last = c.origin + at + 1
	if old < 0 || at-old > maxBack || string(c.window[at:to]) != string(c.window[old:old+to-at]) {
		return false
	}
	c.repeat(at, at-old, to-at)
	return true
}

// differ writes a part that is not the one that was in its place, from old to oldTo. Both
// may begin alike, and again behind a value that is another one.
func (c *compressor) differ(at, to, old, oldTo int) {
	for {
		n := alikeBytes(c.window[at:to], c.window[old:oldTo])
		if n >= minRepetition && at-old <= maxBack {
			c.repeat(at, at-old, n)
			at, old = at+n, old+n
		}
		next, oldNext := bytes.Index(c.window[at:to], nextField), bytes.Index(c.window[old:oldTo], nextField)
		if next <= 0 || oldNext < 0 {
			c.letters(at, to)
			return
		}
		c.letters(at, at+next)
		at, old = at+next, old+oldNext
	}
}

// nextField is what separates fields of JSON.
var nextField = []byte(`,"`)

// alikeBytes returns how many bytes two texts begin with alike.
func alikeBytes(a, b []byte) (n int) {
	a, b = a[:min(len(a), len(b))], b[:min(len(a), len(b))]
	for ; len(a)-n >= 8; n += 8 {
		if diff := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); diff != 0 {
			return n + bits.TrailingZeros64(diff)/8
		}
	}
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}

// repeat notes that length bytes from at are as they were some bytes back.
func (c *compressor) repeat(at, back, length int) {
	if c.pending.length > 0 && c.pending.back == back {
		c.pending.length += length
		return
	}
	c.settle(at)
	c.pending = repetition{back, length}
}

// settle writes the repetition that ends at a place, if there is one.
func (c *compressor) settle(at int) {
	p := c.pending
	if p.length == 0 {
		return
	}
	c.pending = repetition{}
	if p.length < minRepetition {
		c.spell(c.window[at-p.length : at])
		return
	}
	back, backBits := codeOfBack(p.back)
	for left := p.length; left > 0; {
		n := min(left, maxRepetition)
		if rest := left - n; rest > 0 && rest < minRepetition {
			n = left - minRepetition
		}
		left -= n
		code := &codes.lengths[n]
		c.acc |= uint64(code.bits)<<c.used | back<<(c.used+uint(code.n))
		c.used += uint(code.n) + backBits
		c.spill()
	}
}

// letters writes text as it is.
func (c *compressor) letters(at, to int) {
	c.settle(at)
	c.spell(c.window[at:to])
}

func (c *compressor) spell(text []byte) {
	acc, used := c.acc, c.used
	n, out := len(c.out), c.out[:cap(c.out)]
	for ; len(text) >= 3; text = text[3:] {
		a, b, d := codes.letters[text[0]], codes.letters[text[1]], codes.letters[text[2]]
		acc |= uint64(a.bits) << (used & 63)
		used += uint(a.n)
		acc |= uint64(b.bits) << (used & 63)
		used += uint(b.n)
		acc |= uint64(d.bits) << (used & 63)
		used += uint(d.n)
		binary.LittleEndian.PutUint64(out[n:], acc)
		n += int(used >> 3)
		acc >>= used &^ 7
		used &= 7
	}
	c.acc, c.used, c.out = acc, used, out[:n]
	for _, letter := range text {
		c.code(codes.letters[letter])
	}
}

// code writes one code.
func (c *compressor) code(code code) {
	c.acc |= uint64(code.bits) << c.used
	c.used += uint(code.n)
	c.spill()
}

// spill moves whole bytes to out, which must have room for 8.
func (c *compressor) spill() {
	n := len(c.out)
	binary.LittleEndian.PutUint64(c.out[n:n+8], c.acc)
	c.out = c.out[:n+int(c.used>>3)]
	c.acc >>= c.used &^ 7
	c.used &= 7
}

// begin begins a block, which ends with the next flush.
func (c *compressor) begin() {
	c.out = slices.Grow(c.out, len(codes.header)*8)
	for _, piece := range codes.header {
		c.code(piece)
	}
	c.open = true
}

// flush makes what was added readable from out.
func (c *compressor) flush() {
	c.out = slices.Grow(c.out, rowOverhead)
	c.end()
	c.code(code{0, 3}) // an empty block, stored
	c.align()
	c.out = append(c.out, 0, 0, 0xff, 0xff)
}

// close ends the stream.
func (c *compressor) close() {
	c.out = slices.Grow(c.out, rowOverhead)
	c.end()
	c.code(code{0b011, 10}) // the last block, with the codes of the standard, and its end
	c.align()
	c.sumUp()
	c.out = binary.LittleEndian.AppendUint32(c.out, c.sum)
	c.out = binary.LittleEndian.AppendUint32(c.out, c.length)
}

func (c *compressor) end() {
	if c.open {
		c.settle(len(c.window))
		c.code(codes.end)
		c.open = false
	}
}

func (c *compressor) align() {
	if c.used > 0 {
		c.code(code{0, uint8(8 - c.used)})
	}
}

// slide gives up text that cannot be referred to any more.
func (c *compressor) slide() {
	c.settle(len(c.window))
	c.sumUp()
	gone := max(len(c.window)-maxBack, 0)
	rest := c.window[gone:]
	if cap(c.window) > 2*windowBytes { // a row was long
		c.window = make([]byte, 0, windowBytes)
	}
	c.window = append(c.window[:0], rest...)
	c.origin += gone
	c.summed = len(c.window)
}

func (c *compressor) sumUp() {
	c.sum = crc32.Update(c.sum, crc32.IEEETable, c.window[c.summed:])
	c.length += uint32(len(c.window) - c.summed)
	c.summed = len(c.window)
}
