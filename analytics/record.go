package analytics

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/klauspost/compress/zstd"
)

// record is what the state keeps of one rule and day.
//
//	version  1 byte   1
//	kind     1 byte   's' a sketch, 't' a total
//	hash     1 byte   1: SipHash-2-4 of the canonical value, MurmurHash64A of that, bits reversed
//	p        1 byte   precision of the sketch
//	flags    1 byte   1: incomplete, 2: compressed
//	day      4 bytes  days since 1970, big endian
//	revision 4 bytes
//	key      1 byte length, bytes: id of the key
//	rule     2 bytes length, bytes
//	content  4 bytes length, bytes: a sketch of axiomhq/hyperloglog, or a float64
//	check    4 bytes  CRC-32C of all before it
type record struct {
	rule       string
	keyID      string // "" for a total
	day        day
	revision   uint32 // how often it changed after its day was over
	incomplete bool   // somebody was not counted
	total      float64
	sketch     []byte // in the library's format; nil for a total, and until it is unpacked

	isSketch, compressed bool
	content              []byte // borrowed from the file
}

const (
	recordVersion  = 1
	hashMode       = 1
	kindSketch     = 's'
	kindTotal      = 't'
	flagIncomplete = 1
	flagCompressed = 2
	maxBlob        = 1 << 20 // beyond any sketch of this precision
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged says that a record is not what was written.
var errDamaged = errors.New("the record is damaged")

// packer compresses sketches: dense registers to about half.
type packer struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

func newPacker() *packer {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(32<<10))
	if err != nil {
		panic("BUG: options of zstd: " + err.Error())
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlob))
	if err != nil {
		panic("BUG: options of zstd: " + err.Error())
	}
	return &packer{encoder, decoder}
}

func (p *packer) append(dst []byte, r *record) []byte {
	kind, flags, content := byte(kindTotal), byte(0), binary.BigEndian.AppendUint64(nil, math.Float64bits(r.total))
	if r.sketch != nil {
		kind, content = kindSketch, r.sketch
		if packed := p.encoder.EncodeAll(content, nil); len(packed) < len(content) {
			flags, content = flagCompressed, packed
		}
	}
	if r.incomplete {
		flags |= flagIncomplete
	}
	start := len(dst)
	dst = append(dst, recordVersion, kind, hashMode, precision, flags)
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.day))
	dst = binary.BigEndian.AppendUint32(dst, r.revision)
	dst = append(append(dst, byte(len(r.keyID))), r.keyID...)
	dst = append(binary.BigEndian.AppendUint16(dst, uint16(len(r.rule))), r.rule...)
	dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(content))), content...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// readRecord takes a record apart. Its sketch is borrowed from data until it is unpacked.
func readRecord(data []byte) (*record, error) {
	const fixed = 5 + 4 + 4
	if len(data) < fixed+1+2+4+4 {
		return nil, errDamaged
	}
	body, sum := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, errDamaged
	}
	if body[0] != recordVersion || body[2] != hashMode || body[3] != precision {
		return nil, fmt.Errorf("the record has format %d, hash %d and precision %d; this weir reads %d, %d and %d", body[0], body[2], body[3], recordVersion, hashMode, precision)
	}
	r := &record{
		day:        day(binary.BigEndian.Uint32(body[5:])),
		revision:   binary.BigEndian.Uint32(body[9:]),
		incomplete: body[4]&flagIncomplete != 0,
	}
	kind, flags, rest := body[1], body[4], body[fixed:]
	take := func(n int) (part []byte) {
		if n < 0 || n > len(rest) {
			rest = nil
			return nil
		}
		part, rest = rest[:n], rest[n:]
		return part
	}
	r.keyID = string(take(int(rest[0]) + 1))
	if r.keyID == "" || len(rest) < 2 {
		return nil, errDamaged
	}
	r.keyID = r.keyID[1:]
	length := int(binary.BigEndian.Uint16(take(2)))
	r.rule = string(take(length))
	if len(rest) < 4 {
		return nil, errDamaged
	}
	content := take(int(binary.BigEndian.Uint32(take(4))))
	if len(rest) > 0 || content == nil {
		return nil, errDamaged
	}
	switch {
	case kind == kindTotal && len(content) == 8:
		r.total = math.Float64frombits(binary.BigEndian.Uint64(content))
	case kind == kindSketch:
		r.isSketch, r.compressed, r.content = true, flags&flagCompressed != 0, content
	default:
		return nil, errDamaged
	}
	return r, nil
}

// unpack makes the sketch of a record its own.
func (p *packer) unpack(r *record) (err error) {
	switch {
	case !r.isSketch:
	case !r.compressed:
		r.sketch = append([]byte(nil), r.content...)
	default:
		if r.sketch, err = p.decoder.DecodeAll(r.content, nil); err != nil {
			err = fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	r.content = nil
	return err
}
