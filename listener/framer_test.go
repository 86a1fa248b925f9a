package listener

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// frame puts its length before a packet, as DogStatsD clients do.
func frame(packet string) string {
	return string(binary.LittleEndian.AppendUint32(nil, uint32(len(packet)))) + packet
}

// framing is what a framer made of a stream.
type framing struct {
	packets   []string // as handed on; cut ones end in "…"
	lines     []string // the same, line by line
	held      int      // the most bytes it kept
	oversized bool     // it ended the connection
	truncated bool
}

// frameChunks feeds a connection's bytes in the given pieces and ends it.
func frameChunks(t testing.TB, network string, limit int, chunks ...[]byte) (got framing) {
	f := framer{max: limit}
	if network == TCP {
		f.form = byLines
	}
	out := outbox{handle: func(packets []Packet) {
		for _, p := range packets {
			text, mark := string(p.Data), ""
			if p.Cut {
				mark = "…"
				if len(p.Data) != limit {
					t.Errorf("a cut packet has %d bytes, want %d", len(p.Data), limit)
				}
			}
			got.packets = append(got.packets, text+mark)
			for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
				if len(line) > limit {
					t.Errorf("a line of %d bytes was handed on", len(line))
				}
				if line != "" {
					got.lines = append(got.lines, line+mark)
				}
			}
		}
	}}
	for _, chunk := range chunks {
		borrowed := bytes.Clone(chunk)
		err := f.feed(borrowed, &out)
		clear(borrowed) // the next read is into the same memory
		got.held = max(got.held, cap(f.rest))
		if err != nil {
			got.oversized = true
			return got
		}
	}
	got.truncated = f.end(true, &out)
	return got
}

func TestFraming(t *testing.T) {
	const limit = 512
	long := strings.Repeat("x", 2000)
	exact := strings.Repeat("e", limit)
	tests := map[string]struct {
		network   string
		chunks    []string
		want      []string
		oversized bool
		truncated bool
	}{
		"lines":                        {TCP, []string{"a:1|c\nb:2|c\n"}, []string{"a:1|c\nb:2|c\n"}, false, false},
		"a line in pieces":             {TCP, []string{"a:", "1|", "c\nb"}, []string{"a:1|c", "b"}, false, false},
		"the rest is a line":           {TCP, []string{"a:1|c"}, []string{"a:1|c"}, false, false},
		"a newline alone":              {TCP, []string{"a:1|c", "\n"}, []string{"a:1|c"}, false, false},
		"a line as long as may be":     {TCP, []string{exact + "\nb\n"}, []string{exact + "\nb\n"}, false, false},
		"and in pieces":                {TCP, []string{exact[:100], exact[100:], "\nb\n"}, []string{exact, "b\n"}, false, false},
		"and its end later":            {TCP, []string{exact, "\nb\n"}, []string{exact, "b\n"}, false, false},
		"and growing":                  {TCP, []string{exact[:300], exact[:100], exact[:1], exact}, []string{exact + "…"}, false, false},
		"a byte too long":              {TCP, []string{exact + "e\nb\n"}, []string{exact + "…", "b\n"}, false, false},
		"a byte too long, in pieces":   {TCP, []string{exact, "e", "ee\nb\n"}, []string{exact + "…", "b\n"}, false, false},
		"a long line between others":   {TCP, []string{"a\n" + long + "\nb\n"}, []string{"a\n", long[:limit] + "…", "b\n"}, false, false},
		"a long line without an end":   {TCP, []string{"a\n" + long, long, long}, []string{"a\n", long[:limit] + "…"}, false, false},
		"a long line in pieces":        {TCP, []string{"a\nxxx", long, long + "\nb\n" + long}, []string{"a\n", "xxx" + long[:limit-3] + "…", "b\n", long[:limit] + "…"}, false, false},
		"TCP has no frames":            {TCP, []string{frame("a:1|c") + "\n"}, []string{frame("a:1|c") + "\n"}, false, false},
		"frames":                       {UnixStream, []string{frame("a:1|c") + frame("b:1|c\nc:1|c\n")}, []string{"a:1|c", "b:1|c\nc:1|c\n"}, false, false},
		"a frame in pieces":            {UnixStream, []string{"\x05", "\x00\x00", "\x00a:", "1|c\x01\x00", "\x00\x00b"}, []string{"a:1|c", "b"}, false, false},
		"empty frames":                 {UnixStream, []string{frame("") + frame("") + frame("a")}, []string{"a"}, false, false},
		"a frame as long as may be":    {UnixStream, []string{frame(exact) + frame("b")}, []string{exact, "b"}, false, false},
		"a frame that is too long":     {UnixStream, []string{frame("a") + frame(exact+"e") + frame("b")}, []string{"a"}, true, false},
		"garbage":                      {UnixStream, []string{"\xff\xff\xff\xff"}, nil, true, false},
		"half a length":                {UnixStream, []string{frame("a") + "\x05\x00"}, []string{"a"}, false, true},
		"half a frame":                 {UnixStream, []string{frame("a"), frame("bbb")[:6]}, []string{"a"}, false, true},
		"text in a Unix stream":        {UnixStream, []string{"a:1|c\nb:1|c\n"}, []string{"a:1|c", "b:1|c\n"}, false, false},
		"text of newlines":             {UnixStream, []string{"\n\n\na\nb"}, []string{"a", "b"}, false, false},
		"text in pieces":               {UnixStream, []string{"a", ":", "1", "|c", "\nb:1|c\n"}, []string{"a:1|c", "b:1|c\n"}, false, false},
		"short text":                   {UnixStream, []string{"a\n"}, []string{"a\n"}, false, false},
		"short and no text":            {UnixStream, []string{"\x01"}, nil, false, true},
		"nothing":                      {UnixStream, nil, nil, false, false},
		"a frame that looks like text": {UnixStream, []string{frame(strings.Repeat("x", 0x61))}, []string{strings.Repeat("x", 0x61)}, false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var chunks [][]byte
			for _, chunk := range test.chunks {
				chunks = append(chunks, []byte(chunk))
			}
			got := frameChunks(t, test.network, limit, chunks...)
			// How lines are spread over packets is for the framer to choose.
			if join(got.packets) != join(test.want) {
				t.Errorf("got  %q\nwant %q", got.packets, test.want)
			}
			if got.held > limit {
				t.Errorf("%d bytes were held", got.held)
			}
			if got.oversized != test.oversized || got.truncated != test.truncated {
				t.Errorf("oversized %v, truncated %v; want %v, %v", got.oversized, got.truncated, test.oversized, test.truncated)
			}
		})
	}
}

func join(packets []string) string {
	return strings.Join(strings.FieldsFunc(strings.Join(packets, "\n"), func(r rune) bool { return r == '\n' }), "\n")
}

// However a connection's bytes are cut on their way, the same comes out of them,
// and no more than max_packet is held.
func FuzzStreamFraming(f *testing.F) {
	f.Add([]byte("a:1|c\nb:2|c\nrest"), uint64(1), false)
	f.Add([]byte(strings.Repeat("long", 300)+"\na:1|c\n"+strings.Repeat("x", 513)), uint64(2), false)
	f.Add([]byte(frame("a:1|c")+frame("")+frame(strings.Repeat("b", 512))), uint64(3), true)
	f.Add([]byte(frame("a:1|c")+frame(strings.Repeat("b", 513))), uint64(4), true)
	f.Add([]byte("\n\n\n\n\n\n\x00\n"), uint64(5), true)
	f.Add([]byte("ab"), uint64(6), true)
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, unix bool) {
		const limit = 512
		network := TCP
		if unix {
			network = UnixStream
		}
		random := rand.New(rand.NewPCG(seed, 0))
		var chunks [][]byte
		for left := stream; len(left) > 0; {
			n := 1 + random.IntN(min(len(left), 1+random.IntN(1000)))
			chunks = append(chunks, left[:n])
			left = left[n:]
		}
		whole, cut := frameChunks(t, network, limit, stream), frameChunks(t, network, limit, chunks...)
		if !unix || isText(stream[:min(4, len(stream))]) {
			if want := referenceLines(stream, limit); !slices.Equal(whole.lines, want) || !slices.Equal(cut.lines, want) {
				t.Errorf("in one piece %q\nin pieces    %q\nwant         %q", whole.lines, cut.lines, want)
			}
		} else if !slices.Equal(whole.packets, cut.packets) {
			t.Errorf("in one piece %q\nin pieces    %q", whole.packets, cut.packets)
		}
		if whole.oversized != cut.oversized || whole.truncated != cut.truncated {
			t.Errorf("oversized %v and %v, truncated %v and %v", whole.oversized, cut.oversized, whole.truncated, cut.truncated)
		}
		if whole.held > limit || cut.held > limit {
			t.Errorf("held %d and %d bytes, want %d at most", whole.held, cut.held, limit)
		}
	})
}

// referenceLines is the simplest way to cut a text into lines.
func referenceLines(stream []byte, limit int) (lines []string) {
	for line := range bytes.SplitSeq(stream, []byte("\n")) {
		switch {
		case len(line) > limit:
			lines = append(lines, string(line[:limit])+"…")
		case len(line) > 0:
			lines = append(lines, string(line))
		}
	}
	return lines
}

// A connection's packets cost nothing but themselves.
func TestFramerDoesNotAllocate(t *testing.T) {
	var lines, frames []byte
	for i := range 1000 {
		lines = fmt.Appendf(lines, "page.views.%d:1|c\n", i)
		frames = append(frames, frame(fmt.Sprintf("page.views.%d:1|c", i))...)
	}
	for network, stream := range map[string][]byte{TCP: lines, UnixStream: frames} {
		f := framer{max: 8192}
		if network == TCP {
			f.form = byLines
		}
		out := outbox{handle: func([]Packet) {}}
		feed := func() {
			for left := stream; len(left) > 0; {
				n := min(len(left), 777)
				if err := f.feed(left[:n], &out); err != nil {
					t.Fatal(err)
				}
				left = left[n:]
			}
		}
		feed()
		if n := testing.AllocsPerRun(10, feed); n > 0 {
			t.Errorf("%s: %v allocations", network, n)
		}
	}
}
