package raw

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// compressed returns what a compressor makes of rows; each is cut at random, and
// flushed now and then.
func compressed(rows [][]byte, random *rand.Rand) []byte {
	c := newCompressor()
	for i, row := range rows {
		var parts []part
		for at := 0; at < len(row); {
			at += 1 + random.IntN(min(len(row)-at, 60))
			parts = append(parts, part{int32(at), random.IntN(2) == 0})
		}
		if i%2 == 0 {
			parts = []part{{end: int32(len(row))}}
		}
		c.add(row, parts, uint32(random.IntN(3)))
		if random.IntN(50) == 0 {
			c.flush()
		}
	}
	c.close()
	return c.out
}

// unpacked returns what gzip makes of it.
func unpacked(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Whatever the rows and wherever their parts end, gzip has them back as they were.
func FuzzCompress(f *testing.F) {
	f.Add([]byte("abc"), uint64(1))
	f.Add([]byte(`{"a":1,"b":"x"}`+"\n"), uint64(2))
	f.Add([]byte("\x00\xff\x80\n"), uint64(3))
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		var rows [][]byte
		var all []byte
		for range random.IntN(400) {
			row := bytes.Clone(text[:random.IntN(len(text)+1)])
			switch random.IntN(8) {
			case 0:
				for range random.IntN(1000) {
					row = append(row, byte(random.Uint32()))
				}
			case 1:
				row = bytes.Repeat(row, random.IntN(100))
			case 2, 3:
				row = fmt.Appendf(row, "%d", random.IntN(100))
			}
			rows = append(rows, row)
			all = append(all, row...)
		}
		if got := unpacked(t, compressed(rows, random)); !bytes.Equal(got, all) {
			t.Errorf("%d bytes became %d", len(all), len(got))
		}
	})
}

// Rows are had back as they were however far apart those are that resemble each other,
// however long they are, and whenever they are flushed.
func TestCompress(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	typical, _ := typicalRows(2000, 10)
	var resembling [][]byte
	for i := range 2000 {
		// One after the other is some 32 KiB behind, a little less or more.
		resembling = append(resembling, typical[0], noise(maxBack-len(typical[0])-5+i%10))
	}
	var long [][]byte
	for i := range 30 {
		long = append(long, bytes.Repeat(noise(1+i), 40_000), typical[i])
	}
	var repeated [][]byte
	for n := range 600 { // of all lengths, among them one and two more than the longest code
		repeated = append(repeated, append(bytes.Repeat([]byte{'a'}, n), byte(n)), append(bytes.Repeat([]byte{'a'}, n), byte(n+1)))
	}
	for name, rows := range map[string][][]byte{"none": nil, "empty": {{}}, "typical": typical, "far": resembling, "long": long, "repeated": repeated} {
		if got, want := unpacked(t, compressed(rows, random)), bytes.Join(rows, nil); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes became %d, or others", name, len(want), len(got))
		}
	}
}

// What was flushed can be read though the rest is missing, as after kill -9.
func TestFlushedRowsAreReadable(t *testing.T) {
	rows, parts := typicalRows(100, 10)
	c := newCompressor()
	for i := range rows {
		if c.add(rows[i], parts[i], 1); i == 59 {
			c.flush()
			c.out = c.out[:len(c.out):len(c.out)]
			break
		}
	}
	r, err := gzip.NewReader(bytes.NewReader(c.out))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); !bytes.Equal(got, bytes.Join(rows[:60], nil)) {
		t.Errorf("%d bytes can be read: %v", len(got), err)
	}
}

func TestCompressDoesNotAllocate(t *testing.T) {
	rows, parts := typicalRows(5000, 100)
	c := newCompressor()
	run := func() {
		for i := range rows {
			c.add(rows[i], parts[i], 1)
		}
		c.out = c.out[:0]
	}
	run()
	if n := testing.AllocsPerRun(3, run); n > 0 {
		t.Errorf("%v allocations in %d rows", n, len(rows))
	}
}

// typicalRows returns rows of some users as they are written, and the parts that they are made of.
func typicalRows(n, users int) (rows [][]byte, parts [][]part) {
	random := rand.New(rand.NewPCG(1, 2))
	pseudonym := func() string {
		var b [16]byte
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return base64.RawURLEncoding.EncodeToString(b[:])
	}
	var who []string
	for range users {
		who = append(who, pseudonym())
	}
	for i := range n {
		row := fmt.Appendf(nil, `{"event_id":"0192f3a1-0000-7000-8000-00000000%04x`, i&0xffff)
		cuts := []part{{int32(len(row) - 2), false}, {int32(len(row)), true}}
		row = append(row, `","event":"team.created","schema_version":"1-0-0","event_time":"2026-11-21T10:54:10.000Z","received_at":"2026-11-21T10:54:10.000Z",`+
			`"host":"web-1","count":1,"sample_rate":1,"consent":[],"key_id":"0a1b2c3d","flags":[],"attrs":{"user_id":"`...)
		cuts = append(cuts, part{int32(len(row)), false})
		row = append(row, who[random.IntN(users)]...)
		cuts = append(cuts, part{int32(len(row)), true})
		row = append(row, `","default_user_id":null,"organization_id":"Xk0n3J5pQmGd7sT1vW2yZA","team_id":null,"plan":"pro"},"extra":{},"context":{}}`+"\n"...)
		rows, parts = append(rows, row), append(parts, append(cuts, part{int32(len(row)), false}))
	}
	return rows, parts
}

// Rows become hardly larger than a compressor for anything makes them.
func TestCompressedSize(t *testing.T) {
	rows, parts := typicalRows(20_000, 1000)
	c := newCompressor()
	var all []byte
	for i := range rows {
		c.add(rows[i], parts[i], 1)
		all = append(all, rows[i]...)
	}
	c.close()
	if got := unpacked(t, c.out); !bytes.Equal(got, all) {
		t.Fatal("it is not what it was")
	}
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	w.Write(all)
	w.Close()
	t.Logf("%d bytes became %d, and with the library %d", len(all), len(c.out), b.Len())
	if len(c.out) > b.Len()*6/5 {
		t.Errorf("%d bytes became %d, and with the library %d", len(all), len(c.out), b.Len())
	}
}

func BenchmarkCompress(b *testing.B) {
	rows, parts := typicalRows(20_000, 1000)
	c := newCompressor()
	b.ReportAllocs()
	b.SetBytes(int64(len(rows[0])))
	i := 0
	for b.Loop() {
		c.add(rows[i], parts[i], 1)
		if i++; i == len(rows) {
			i = 0
		}
		if len(c.out) > 64<<10 {
			c.out = c.out[:0]
		}
	}
}

// Ids made on arrival are of version 7, have the time in them, and no two are alike.
func TestIDsOfRows(t *testing.T) {
	ids := rowIDs{serial: 1<<62 - 100}
	seen := map[string]bool{}
	for _, second := range []int64{1795258450, 1795258451, 1795258450} {
		for range 600 {
			id := string(ids.next(second))
			if seen[id] || id[14] != '7' || id[19] < '8' || id[19] > 'b' {
				t.Fatalf("id %s, the %dth", id, len(seen)+1)
			}
			seen[id] = true
			if ms, err := strconv.ParseInt(id[:8]+id[9:13], 16, 64); err != nil || ms != second*1000 {
				t.Fatalf("id %s is of %d: %v", id, ms, err)
			}
		}
	}
}
