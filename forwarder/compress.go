package forwarder

import (
	"bytes"
	"fmt"
	"io"

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

// compressor makes the bodies of requests. It is used by one goroutine.
type compressor interface {
	// compress appends the compressed src to dst.
	compress(dst, src []byte) ([]byte, error)
}

// newCompressor returns the compressor of a configured name or a Content-Encoding.
func newCompressor(name string) (compressor, error) {
	switch name {
	case CompressZstd:
		// One goroutine, little memory: an agent is a guest on its host.
		encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, fmt.Errorf("make a compressor: %w", err)
		}
		return zstdCompressor{encoder}, nil
	case CompressGzip:
		return &streamCompressor{stream: gzip.NewWriter(nil)}, nil
	case CompressDeflate:
		return &streamCompressor{stream: zlib.NewWriter(nil)}, nil
	case CompressNone, "":
		return noCompressor{}, nil
	}
	return nil, fmt.Errorf("there is no compression %q", name)
}

// contentEncoding returns the header that goes with a compression; "": none.
func contentEncoding(compression string) string {
	if compression == CompressNone {
		return ""
	}
	return compression
}

type zstdCompressor struct{ encoder *zstd.Encoder }

func (c zstdCompressor) compress(dst, src []byte) ([]byte, error) {
	return c.encoder.EncodeAll(src, dst), nil
}

type noCompressor struct{}

func (noCompressor) compress(dst, src []byte) ([]byte, error) { return append(dst, src...), nil }

// streamCompressor keeps a writer's memory from one payload to the next.
type streamCompressor struct {
	stream interface {
		io.WriteCloser
		Reset(io.Writer)
	}
}

func (c *streamCompressor) compress(dst, src []byte) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	c.stream.Reset(out)
	if _, err := c.stream.Write(src); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := c.stream.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return out.Bytes(), nil
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
