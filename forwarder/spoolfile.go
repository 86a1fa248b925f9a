package forwarder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"time"
)

// record is a payload as it stands in the spool: what to send and where, without
// the key that opens the door.
type record struct {
	target   string // whom it is for, in the caller's own words; never a key or a URL with one
	route    string
	encoding string    // of the body, as Content-Encoding says it
	start    time.Time // of the interval its points belong to
	points   uint64
	body     []byte

	// What is forgotten with the process.
	attempts  int         // that failed
	notBefore time.Time   // it is not given out
	entry     *spoolEntry // of a record that was taken, the spool's own
}

// The bounds of a record. A file that says otherwise is torn.
const (
	maxRecordText   = 1024     // bytes of target, route and encoding, each
	maxRecordBody   = 16 << 20 // bytes
	maxRecordPoints = math.MaxUint32
)

// The layout of a file in the spool, one record each; numbers are little endian.
//
//	 0        8          12        16         24          32
//	┌────────┬──────────┬─────────┬──────────┬───────────┬─
//	│ magic, │ bytes of │ bytes   │ start,   │ points    │
//	│ version│ header   │ of body │ Unix ns  │           │
//	└────────┴──────────┴─────────┴──────────┴───────────┴─
//	 32        34         36       38         40
//	─┬────────┬──────────┬────────┬──────────┬─
//	 │ bytes of route    │ bytes of target   │
//	 │        │ encoding │        │ always 0 │
//	─┴────────┴──────────┴────────┴──────────┴─
//	 40                              h-8       h-4          h        h+body
//	─┬───────┬──────────┬───────────┬─────────┬────────────┬────────┐
//	 │ route │ encoding │ target    │ CRC32C  │ CRC32C of  │ body   │
//	 │       │          │           │ of body │ 0 to h-4   │        │
//	─┴───────┴──────────┴───────────┴─────────┴────────────┴────────┘
//
// The header vouches for the body, so a file is whole if its length is the one the
// header states and both sums are right. There is one way to write a record.
const (
	spoolMagic   = "weirspl\x01" // the last byte is the version
	fixedHeader  = 40
	headerSums   = 8
	minHeader    = fixedHeader + headerSums
	maxHeader    = minHeader + 3*maxRecordText
	spoolSuffix  = ".payload"
	tempSuffix   = ".tmp"
	nameNumbers  = 3
	nameDigits   = 16
	nameLength   = nameNumbers*(nameDigits+1) - 1 + len(spoolSuffix)
	maxUnixStart = math.MaxInt64 / int64(time.Second)
	maxSerial    = 1 << 62 // far from where counting on would wrap
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// check returns what is wrong with a record that cannot be written.
func (r *record) check() error {
	for _, text := range []string{r.target, r.route, r.encoding} {
		if len(text) > maxRecordText {
			return fmt.Errorf("%d bytes in the target, route or encoding of a record; at most %d are possible", len(text), maxRecordText)
		}
	}
	switch {
	case len(r.body) > maxRecordBody:
		return fmt.Errorf("%w: %d bytes; at most %d are possible", errSpoolTooLarge, len(r.body), maxRecordBody)
	case r.points > maxRecordPoints:
		return fmt.Errorf("%d points in a record; at most %d are possible", r.points, uint64(maxRecordPoints))
	case r.start.Unix() < 0 || r.start.Unix() >= maxUnixStart:
		return fmt.Errorf("a record of %v cannot be named; its interval must begin after 1970 and before 2262", r.start)
	}
	return nil
}

// appendHeader appends all of r's file but the body; r must have passed check.
func appendHeader(dst []byte, r *record) []byte {
	from := len(dst)
	size := minHeader + len(r.route) + len(r.encoding) + len(r.target)
	dst = append(dst, spoolMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(size))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(r.body)))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.start.UnixNano()))
	dst = binary.LittleEndian.AppendUint64(dst, r.points)
	for _, n := range []int{len(r.route), len(r.encoding), len(r.target), 0} {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(n))
	}
	dst = append(dst, r.route...)
	dst = append(dst, r.encoding...)
	dst = append(dst, r.target...)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(r.body, castagnoli))
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[from:], castagnoli))
}

// The ways in which a file is not a record.
var (
	errTornLength  = errors.New("it is shorter or longer than it should be")
	errTornMagic   = errors.New("it does not begin as a file of the spool")
	errTornVersion = errors.New("another version of weir has written it")
	errTornHeader  = errors.New("its header is damaged")
	errTornBody    = errors.New("its body is damaged")
	errTornName    = errors.New("its name and its header say different things")
	errTornKind    = errors.New("it is no regular file")
)

// header is what the beginning of a file says about the whole.
type header struct {
	record // without the body
	size   int
	body   int
	sum    uint32 // of the body
}

// decodeHeader reads the header at the beginning of a file of the given length.
// begin holds its first maxHeader bytes, or all of it.
func decodeHeader(begin []byte, length int64) (header, error) {
	var h header
	if len(begin) < len(spoolMagic) {
		return h, errTornLength
	}
	if magic := spoolMagic[:len(spoolMagic)-1]; string(begin[:len(magic)]) != magic {
		return h, errTornMagic
	}
	if string(begin[:len(spoolMagic)]) != spoolMagic {
		return h, errTornVersion
	}
	if len(begin) < minHeader {
		return h, errTornLength
	}
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(begin[at:])) }
	h.size = int(binary.LittleEndian.Uint32(begin[8:]))
	h.body = int(binary.LittleEndian.Uint32(begin[12:]))
	route, encoding, target := u16(32), u16(34), u16(36)
	if max(route, encoding, target) > maxRecordText || u16(38) != 0 || h.size != minHeader+route+encoding+target {
		return h, errTornHeader
	}
	if len(begin) < h.size {
		return h, errTornLength
	}
	if binary.LittleEndian.Uint32(begin[h.size-4:]) != crc32.Checksum(begin[:h.size-4], castagnoli) {
		return h, errTornHeader
	}
	if length != int64(h.size)+int64(h.body) {
		return h, errTornLength
	}
	text := string(begin[fixedHeader : fixedHeader+route+encoding+target])
	h.route, h.encoding, h.target = text[:route], text[route:route+encoding], text[route+encoding:]
	h.start = time.Unix(0, int64(binary.LittleEndian.Uint64(begin[16:]))).UTC()
	h.points = binary.LittleEndian.Uint64(begin[24:])
	h.sum = binary.LittleEndian.Uint32(begin[h.size-8:])
	if h.body > maxRecordBody || h.check() != nil {
		return h, errTornHeader
	}
	return h, nil
}

// decodeRecord reads a whole file. The record's body is a part of file.
func decodeRecord(file []byte) (*record, error) {
	h, err := decodeHeader(file[:min(len(file), maxHeader)], int64(len(file)))
	if err != nil {
		return nil, err
	}
	h.record.body = file[h.size:]
	if crc32.Checksum(h.record.body, castagnoli) != h.sum {
		return nil, errTornBody
	}
	return &h.record, nil
}

// spoolName is what a file's name says: the interval's start, so that names sort as
// records are sent; a number of its own; and the points, so that they can be counted
// even if nothing else of the file can be read.
//
//	0000000065f1a2b0-0000000000000007-0000000000002710.payload
type spoolName struct {
	start  uint64 // Unix seconds
	serial uint64
	points uint64
}

func (n spoolName) String() string {
	return fmt.Sprintf("%016x-%016x-%016x%s", n.start, n.serial, n.points, spoolSuffix)
}

// parseSpoolName is String backwards; ok is false for names of other files.
func parseSpoolName(text string) (n spoolName, ok bool) {
	digits, ok := strings.CutSuffix(text, spoolSuffix)
	if !ok || len(text) != nameLength {
		return n, false
	}
	for i, into := range []*uint64{&n.start, &n.serial, &n.points} {
		at := i * (nameDigits + 1)
		var err error
		if *into, err = strconv.ParseUint(digits[at:at+nameDigits], 16, 64); err != nil {
			return n, false
		}
	}
	// Other spellings of the same numbers, and numbers that no record has.
	if n.String() != text || n.start >= uint64(maxUnixStart) || n.points > maxRecordPoints || n.serial > maxSerial {
		return n, false
	}
	return n, true
}

// names reports whether n is the name of r.
func (n spoolName) names(r *record) bool {
	return n.start == uint64(r.start.Unix()) && n.points == r.points
}
