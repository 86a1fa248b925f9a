package listener

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// errFrame ends a connection whose next frame is longer than max_packet.
var errFrame = errors.New("a frame longer than max_packet")

// form is how a connection tells one packet from the next.
type form uint8

const (
	// undecided: the first four bytes of a Unix stream will tell. If all of them
	// are printable ASCII or newlines, the client sends text: as a length they
	// would mean more than 160 MB, which no frame is.
	undecided form = iota
	// byLines: lines, each ended by a newline.
	byLines
	// byLength: packets, each behind its length (4 bytes, little-endian).
	byLength
)

// framer makes packets of the bytes of one connection, however they are cut on
// their way. It holds at most max bytes: the beginning of a line or a frame whose
// end has not arrived.
type framer struct {
	max      int
	form     form
	skipping bool    // byLines: within the rest of a line that was too long
	head     [4]byte // undecided, byLength: the length
	headSize int     // how much of it is there
	rest     []byte
}

// outbox gathers packets until they are handed on. Its owner reuses it.
type outbox struct {
	packets   []Packet
	handle    func([]Packet)
	sender    string
	longLines int // lines that were cut
}

const packetsInOutbox = 64

func (o *outbox) add(data []byte, cut bool) {
	if len(data) == 0 {
		return
	}
	o.packets = append(o.packets, Packet{Data: data, Cut: cut, Sender: o.sender})
	if cut {
		o.longLines++
	}
	if len(o.packets) == packetsInOutbox {
		o.flush()
	}
}

// flush hands on what was added. From then on the memory of it is free.
func (o *outbox) flush() {
	if len(o.packets) > 0 {
		o.handle(o.packets)
		o.packets = o.packets[:0]
	}
}

// feed takes the next bytes of the connection and hands the packets they complete
// to out. After an error nothing more can be made of the connection.
//
// Hot path: once per read. No allocation once the framer has held a rest;
// TestFramerDoesNotAllocate checks.
func (f *framer) feed(data []byte, out *outbox) error {
	defer out.flush()
	if f.form == undecided {
		data = data[f.takeHead(data):]
		if f.headSize < len(f.head) {
			return nil
		}
		f.form = byLength
		if isText(f.head[:]) {
			f.form, f.headSize = byLines, 0
			f.lines(f.head[:], out)
		} else if f.frameSize() > f.max {
			return errFrame
		}
	}
	if f.form == byLines {
		f.lines(data, out)
		return nil
	}
	return f.frames(data, out)
}

// end is called when no more bytes will come. After an orderly end the rest of a
// text is a line like the others. It reports whether a rest is lost.
func (f *framer) end(orderly bool, out *outbox) (truncated bool) {
	rest := f.rest
	if f.form == undecided && isText(f.head[:f.headSize]) {
		rest = f.head[:f.headSize]
	} else if f.form != byLines {
		return f.headSize > 0
	}
	if !orderly {
		return len(rest) > 0
	}
	out.add(rest, false)
	out.flush()
	return false
}

func isText(b []byte) bool {
	for _, c := range b {
		if c != '\n' && c != '\r' && c != '\t' && (c < ' ' || c > '~') {
			return false
		}
	}
	return true
}

// takeHead moves bytes from data to the head and returns how many.
func (f *framer) takeHead(data []byte) int {
	n := copy(f.head[f.headSize:], data)
	f.headSize += n
	return n
}

// frameSize is the length in the head, or more than any frame may have.
func (f *framer) frameSize() int {
	return int(min(binary.LittleEndian.Uint32(f.head[:]), maxPacket+1))
}

// hold appends to the rest. Its memory grows as it must, and to max at most.
func (f *framer) hold(data []byte) {
	if size := len(f.rest) + len(data); size > cap(f.rest) {
		const least = 256
		larger := make([]byte, len(f.rest), min(max(size, 2*cap(f.rest), least), f.max))
		copy(larger, f.rest)
		f.rest = larger
	}
	f.rest = append(f.rest, data...)
}

// lines hands on all whole lines, those of data in one packet.
func (f *framer) lines(data []byte, out *outbox) {
	if f.skipping {
		if data = afterNewline(data); data == nil {
			return
		}
		f.skipping = false
	}
	if len(f.rest) > 0 {
		if data = f.finishLine(data, out); data == nil {
			return
		}
	}
	for len(data) > 0 {
		whole := wholeLines(data, f.max)
		out.add(data[:whole], false)
		data = data[whole:]
		if len(data) <= f.max {
			break
		}
		out.add(data[:f.max], true)
		if data = afterNewline(data[f.max:]); data == nil {
			f.skipping = true
		}
	}
	f.hold(data)
}

// finishLine completes the line that the rest begins, and returns what is behind
// it; nil if it has no end yet.
func (f *framer) finishLine(data []byte, out *outbox) []byte {
	room := f.max - len(f.rest)
	end := bytes.IndexByte(data[:min(len(data), room+1)], '\n')
	switch {
	case end >= 0:
		f.hold(data[:end])
		out.add(f.rest, false)
		data = data[end+1:]
	case len(data) <= room:
		f.hold(data)
		return nil
	default:
		f.hold(data[:room])
		out.add(f.rest, true)
		data = afterNewline(data[room:])
		f.skipping = data == nil
	}
	out.flush() // the rest was in it
	f.rest = f.rest[:0]
	return data
}

// afterNewline returns what is behind the first newline; nil if there is none.
func afterNewline(data []byte) []byte {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return data[i+1:]
	}
	return nil
}

// wholeLines returns how many bytes from the start of data are lines with their
// newlines, none of them longer than longest.
func wholeLines(data []byte, longest int) int {
	size := 0
	for size < len(data) {
		// Whatever lines are in so short a window, none is too long.
		last := bytes.LastIndexByte(data[size:min(len(data), size+longest+1)], '\n')
		if last < 0 {
			break
		}
		size += last + 1
	}
	return size
}

// frames hands on all whole frames, each in a packet.
func (f *framer) frames(data []byte, out *outbox) error {
	for {
		if f.headSize == len(f.head) {
			size := f.frameSize()
			if len(f.rest) == 0 && len(data) >= size {
				out.add(data[:size], false)
				data = data[size:]
			} else {
				n := min(size-len(f.rest), len(data))
				f.hold(data[:n])
				data = data[n:]
				if len(f.rest) < size {
					return nil
				}
				out.add(f.rest, false)
				out.flush()
				f.rest = f.rest[:0]
			}
			f.headSize = 0
		}
		data = data[f.takeHead(data):]
		if f.headSize < len(f.head) {
			return nil
		}
		if f.frameSize() > f.max {
			return errFrame
		}
	}
}
