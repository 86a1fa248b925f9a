package forwarder

import (
	"io"
	"testing"

	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

// TestReadersHearOfEncoding: while a batch is encoded, readers stay away for shorter.
func TestReadersHearOfEncoding(t *testing.T) {
	ended := func() bool { return !priority.Busy() }
	eventually(t, "the end of what earlier tests have begun", ended)
	encoders := map[string]func(heard func()){
		"payloads": func(heard func()) {
			p, err := newPacker(CompressZstd, discard())
			if err != nil {
				t.Fatal(err)
			}
			p.pack(example(), func(payload) { heard() }, nil)
		},
		"dogstatsd": func(heard func()) {
			dogStatsDForTest(t, 1432).pack(example(), func([]byte, uint64, bool) { heard() }, func(uint64, DropReason) {})
		},
		"statsd": func(heard func()) {
			(&statsD{size: 1432, style: TagsDogStatsD, log: discard()}).pack(example(), func([]byte, uint64, bool) { heard() }, nil)
		},
		"lines": func(heard func()) {
			(&logs{out: io.Discard, format: listened{textLines{}, heard}}).write(t.Context(), example(), nil)
		},
	}
	for name, encode := range encoders {
		heard := false
		encode(func() { heard = heard || priority.Busy() })
		if !heard {
			t.Errorf("%s: there seemed to be no work", name)
		}
		if !ended() {
			t.Errorf("%s: the work never ended", name)
		}
	}
}

// listened is a format that tells of each series.
type listened struct {
	lineFormat
	heard func()
}

func (l listened) series(dst []byte, b *metric.Batch, s *metric.Series) []byte {
	l.heard()
	return l.lineFormat.series(dst, b, s)
}
