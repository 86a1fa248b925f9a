package forwarder

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Ways to compress payloads.
const (
	CompressZstd    = "zstd"
	CompressGzip    = "gzip"
	CompressDeflate = "deflate" // in the format of zlib, as HTTP means it
	CompressNone    = "none"
)

var compressions = []string{CompressZstd, CompressGzip, CompressDeflate, CompressNone}

// body is the compressed body of one request in the making, for one goroutine. It is
// made of pieces, each of which stands for itself in out, so that the last one can be
// taken back when it turns out to be too much.
type body struct {
	compression string
	stream      stream                               // that writes to out; nil: none
	checksum    func(sum uint32, more []byte) uint32 // nil: there is none
	out         []byte
	bodyState
}

// bodyState is what a body can be taken back to.
type bodyState struct {
	length int    // of out
	size   int    // before compression
	sum    uint32 // of all of it
}

// stream is a compressor that begins anew after Reset. After Flush all that was written
// is in its output, which can be followed by an ending.
type stream interface {
	io.Writer
	Flush() error
	Reset(io.Writer)
}

// What bodies begin with. The streams of gzip and zlib are made by flate.
var (
	gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	zlibHeader = []byte{0x78, 0x9c}
)

// newBody returns the maker of bodies of a configured compression or a
// Content-Encoding. begin begins the first.
func newBody(compression string) (*body, error) {
	b := &body{compression: compression}
	var err error
	switch compression {
	case CompressZstd:
		// One goroutine, little memory: an agent is a guest on its host. A larger window
		// makes nothing smaller and costs cache misses. A checksum is left to the
		// transport and the spool.
		b.stream, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	case CompressGzip:
		b.checksum = func(sum uint32, more []byte) uint32 { return crc32.Update(sum, crc32.IEEETable, more) }
		b.stream, err = flate.NewWriter(nil, flate.DefaultCompression)
	case CompressDeflate:
		b.checksum = adler32
		b.stream, err = flate.NewWriter(nil, flate.DefaultCompression)
	case CompressNone, "":
	default:
		err = fmt.Errorf("there is no compression %q", compression)
	}
	if err != nil {
		return nil, fmt.Errorf("make a compressor: %w", err)
	}
	return b, nil
}

// contentEncoding returns the header that goes with a compression; "": none.
func contentEncoding(compression string) string {
	if compression == CompressNone {
		return ""
	}
	return compression
}

// Write takes what the stream has compressed.
func (b *body) Write(p []byte) (int, error) {
	b.out = append(b.out, p...)
	return len(p), nil
}

// begin begins an empty body and forgets the last.
func (b *body) begin() {
	b.out, b.bodyState = b.out[:0], bodyState{}
	switch b.compression {
	case CompressGzip:
		b.out = append(b.out, gzipHeader...)
	case CompressDeflate:
		b.out = append(b.out, zlibHeader...)
		b.sum = 1
	}
	b.length = len(b.out)
	if b.stream != nil {
		b.stream.Reset(b)
	}
}

// add appends a piece that is made of two parts.
func (b *body) add(part, more []byte) {
	for _, p := range [...][]byte{part, more} {
		b.count(p)
		if b.stream == nil {
			b.out = append(b.out, p...)
		} else if _, err := b.stream.Write(p); err != nil {
			panic("BUG: compressing into memory: " + err.Error())
		}
	}
	if b.stream != nil {
		if err := b.stream.Flush(); err != nil {
			panic("BUG: compressing into memory: " + err.Error())
		}
	}
	b.length = len(b.out)
}

// count takes note of what goes in.
func (b *body) count(p []byte) {
	b.size += len(p)
	if b.checksum != nil {
		b.sum = b.checksum(b.sum, p)
	}
}

// takeBack forgets what was added since. After it only end may follow, as the stream
// remembers what is gone.
func (b *body) takeBack(to bodyState) {
	b.bodyState = to
	b.out = b.out[:to.length]
}

// mostInBlock is what a block that is stored as it is may hold, of all compressions.
const mostInBlock = 65_535

// end appends a last, short piece, as it is, completes the body and returns it. It is
// valid until begin.
//
//	zstd:          a raw block for each part: 3 bytes of last | raw<<1 | length<<3
//	gzip, deflate: a stored block for each part: last, 2 bytes of length, the same inverted; then the sums
func (b *body) end(after []byte) []byte {
	b.count(after)
	if b.stream == nil {
		b.out = append(b.out, after...)
		return b.out
	}
	for last := byte(0); last == 0; {
		part := after[:min(len(after), mostInBlock)]
		after = after[len(part):]
		if len(after) == 0 {
			last = 1
		}
		n := uint32(len(part))
		if b.compression == CompressZstd {
			b.out = append(b.out, last|byte(n<<3), byte(n>>5), byte(n>>13))
		} else {
			b.out = append(b.out, last, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
		}
		b.out = append(b.out, part...)
	}
	switch b.compression {
	case CompressGzip:
		b.out = binary.LittleEndian.AppendUint32(b.out, b.sum)
		b.out = binary.LittleEndian.AppendUint32(b.out, uint32(b.size))
	case CompressDeflate:
		b.out = binary.BigEndian.AppendUint32(b.out, b.sum)
	}
	return b.out
}

// ending returns how many bytes end appends for a last piece of n bytes.
func (b *body) ending(n int) int {
	blocks := max(1, (n+mostInBlock-1)/mostInBlock)
	switch b.compression {
	case CompressZstd:
		return n + blocks*3
	case CompressGzip:
		return n + blocks*5 + 8
	case CompressDeflate:
		return n + blocks*5 + 4
	}
	return n
}

// adler32 goes on with the checksum of zlib. (hash/adler32 cannot go on from a sum.)
func adler32(sum uint32, more []byte) uint32 {
	const (
		modulus = 65_521
		chunk   = 5552 // as many bytes as no sum overflows for
	)
	low, high := sum&0xffff, sum>>16
	for len(more) > 0 {
		n := min(len(more), chunk)
		for _, c := range more[:n] {
			low += uint32(c)
			high += low
		}
		low, high, more = low%modulus, high%modulus, more[n:]
	}
	return high<<16 | low
}

// decompress returns what was compressed for a Content-Encoding, if it is no more
// than most bytes.
func decompress(encoding string, body []byte, most int) ([]byte, error) {
	var r io.Reader
	switch encoding {
	case CompressZstd:
		d, err := zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(most)))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		r = d
	case CompressGzip:
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		r = z
	case CompressDeflate:
		z, err := zlib.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		r = z
	case "":
		return body, nil
	default:
		return nil, fmt.Errorf("there is no compression %q", encoding)
	}
	raw, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > most {
		return nil, fmt.Errorf("it is larger than %d bytes", most)
	}
	return raw, nil
}
