package forwarder

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/adler32"
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
	stream      stream      // that writes to out; nil: none
	hash        hash.Hash32 // of what went in, as the ending wants it; nil: it wants none
	out         []byte
	bodyState
}

// bodyState is what a body can be taken back to.
type bodyState struct {
	length int    // of out
	size   int    // before compression
	sum    uint32 // of hash
}

// stream is a compressor that begins anew after Reset. After Flush all that was written
// is in its output, which can be followed by an ending.
type stream interface {
	io.Writer
	Flush() error
	Reset(io.Writer)
}

// What stands at the ends of bodies. The streams of gzip and zlib are made by flate,
// whose own ending is an empty stored block; that of zstd is an empty raw block.
var (
	gzipHeader    = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	zlibHeader    = []byte{0x78, 0x9c}
	deflateEnding = []byte{1, 0, 0, 0xff, 0xff}
	zstdEnding    = []byte{1, 0, 0}
)

// newBody returns the maker of bodies of a configured compression or a
// Content-Encoding. begin begins the first.
func newBody(compression string) (*body, error) {
	b := &body{compression: compression}
	var err error
	switch compression {
	case CompressZstd:
		// One goroutine, little memory: an agent is a guest on its host. A checksum is
		// left to the transport and the spool.
		b.stream, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	case CompressGzip:
		b.hash = crc32.NewIEEE()
		b.stream, err = flate.NewWriter(nil, flate.DefaultCompression)
	case CompressDeflate:
		b.hash = adler32.New()
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

// Write takes what the stream has compressed.
func (b *body) Write(p []byte) (int, error) {
	b.out = append(b.out, p...)
	return len(p), nil
}

// begin begins an empty body and forgets the last.
func (b *body) begin() {
	b.out = b.out[:0]
	switch b.compression {
	case CompressGzip:
		b.out = append(b.out, gzipHeader...)
	case CompressDeflate:
		b.out = append(b.out, zlibHeader...)
	}
	if b.hash != nil {
		b.hash.Reset()
	}
	if b.stream != nil {
		b.stream.Reset(b)
	}
	b.size = 0
	b.settle()
}

// add appends a piece that is made of two parts.
func (b *body) add(part, more []byte) {
	for _, p := range [...][]byte{part, more} {
		if b.hash != nil {
			b.hash.Write(p) // never fails
		}
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
	b.size += len(part) + len(more)
	b.settle()
}

func (b *body) settle() {
	b.length = len(b.out)
	if b.hash != nil {
		b.sum = b.hash.Sum32()
	}
}

// takeBack forgets what was added since. After it only end may follow.
func (b *body) takeBack(to bodyState) {
	b.bodyState = to
	b.out = b.out[:to.length]
}

// end completes the body and returns it. It is valid until begin.
func (b *body) end() []byte {
	switch b.compression {
	case CompressZstd:
		b.out = append(b.out, zstdEnding...)
	case CompressGzip:
		b.out = append(b.out, deflateEnding...)
		b.out = binary.LittleEndian.AppendUint32(b.out, b.sum)
		b.out = binary.LittleEndian.AppendUint32(b.out, uint32(b.size))
	case CompressDeflate:
		b.out = append(b.out, deflateEnding...)
		b.out = binary.BigEndian.AppendUint32(b.out, b.sum)
	}
	return b.out
}

// ending returns how many bytes end appends.
func (b *body) ending() int {
	switch b.compression {
	case CompressZstd:
		return len(zstdEnding)
	case CompressGzip:
		return len(deflateEnding) + 8
	case CompressDeflate:
		return len(deflateEnding) + 4
	}
	return 0
}

// most returns how many bytes a piece of n bytes may become at most: what does not
// shrink is stored.
func (b *body) most(n int) int {
	const blockHeaders, inBlock = 16, 16 << 10
	if b.stream == nil || n == 0 {
		return n
	}
	return n + (n/inBlock+1)*blockHeaders
}

// contentEncoding returns the header that goes with a compression; "": none.
func contentEncoding(compression string) string {
	if compression == CompressNone {
		return ""
	}
	return compression
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
