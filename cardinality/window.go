package cardinality

import "github.com/axiomhq/hyperloglog"

// windowParts is how many parts a window has. The oldest is dropped when a new one
// begins, so that a count covers four fifths of the window to all of it.
const windowParts = 5

// The precisions of sketches: 2^p registers of a byte, with an error of 1.04/√2^p.
const (
	contextPrecision = 12 // 1.6 %: compared with limits
	valuePrecision   = 10 // 3.3 %: told to people, and compared with half of a limit
)

// window estimates how many distinct hashes there were in the last while. A nil
// window has seen none and takes none.
type window struct {
	precision uint8
	current   int
	parts     [windowParts]*hyperloglog.Sketch // nil: empty
}

func newWindow(precision uint8) *window { return &window{precision: precision} }

// bytes is how much memory the window may take.
func (w *window) bytes() int64 {
	if w == nil {
		return 0
	}
	return windowBytes(w.precision)
}

func windowBytes(precision uint8) int64 { return windowParts * (1<<precision + 64) }

func (w *window) insert(hash uint64) {
	if w == nil {
		return
	}
	part := w.parts[w.current]
	if part == nil {
		part = newSketch(w.precision)
		w.parts[w.current] = part
	}
	part.InsertHash(hash)
}

// newSketch returns a sketch without the sparse form, which costs many times more
// for each hash.
func newSketch(precision uint8) *hyperloglog.Sketch {
	s, err := hyperloglog.NewSketch(precision, false)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return s
}

// rotate drops the oldest part and begins a new one.
func (w *window) rotate() {
	if w == nil {
		return
	}
	w.current = (w.current + 1) % windowParts
	if part := w.parts[w.current]; part != nil {
		part.Reset()
	}
}

// union returns one sketch of all parts, nil if nothing was ever inserted.
func (w *window) union() *hyperloglog.Sketch {
	if w == nil {
		return nil
	}
	var all *hyperloglog.Sketch
	for _, part := range w.parts {
		switch {
		case part == nil:
		case all == nil:
			all = part.Clone()
		default:
			if err := all.Merge(part); err != nil {
				panic("BUG: " + err.Error())
			}
		}
	}
	return all
}

func (w *window) estimate() int {
	if all := w.union(); all != nil {
		return int(all.Estimate())
	}
	return 0
}
