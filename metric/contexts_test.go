package metric

import (
	"fmt"
	"reflect"
	"testing"
	"unsafe"
)

// A ref leads to its context, whether that is in a block or apart, wherever in the block
// and whatever is added later.
func TestContextRefs(t *testing.T) {
	key := func(name string) []byte { return AppendContextKey(nil, Gauge, []byte(name), Host{}, nil, nil) }
	var all Contexts
	names := map[ContextRef]string{}
	all.Blocks = make([][]uint32, MaxBlocks)
	for _, block := range []uint32{1, 2, MaxBlocks - 1} {
		all.Blocks[block] = make([]uint32, 2*BlockWords)
		for _, word := range []uint32{0, 100, BlockWords - 1} {
			name, ref := fmt.Sprintf("block %d, word %d", block, word), RefTo(block, word)
			PlaceContext(all.Blocks[block][word:], key(name))
			if ref.Block() != block || ref.Word() != word {
				t.Errorf("%s: the ref has block %d, word %d", name, ref.Block(), ref.Word())
			}
			names[ref] = name
		}
	}
	apart := func(c *Contexts, name string) ContextRef { return c.Add(NewContext(key(name))) }
	names[apart(&all, "apart 0")] = "apart 0"
	names[apart(&all, "apart 1")] = "apart 1"

	var other, none Contexts
	refs := []ContextRef{apart(&other, "other 0"), apart(&other, "other 1")}
	moved := all.Take(&other)
	for i, ref := range refs {
		name := fmt.Sprint("other ", i)
		names[ref+moved] = name
		if got := other.At(ref).Name(); got != name {
			t.Errorf("%s was taken, and is %q where it was", name, got)
		}
	}
	all.Take(&none)
	names[apart(&all, "apart 2")] = "apart 2"
	if len(names) != 3*3+3+2 {
		t.Fatalf("two contexts have one ref: %v", names)
	}
	if names[0] != "" {
		t.Errorf("%s has the ref of none", names[0])
	}
	for ref, name := range names {
		if got := all.At(ref).Name(); got != name {
			t.Errorf("the ref of %s leads to %q", name, got)
		}
	}
}

func TestBatchAdd(t *testing.T) {
	var b Batch
	for _, name := range []string{"one", "other"} {
		c := NewContext(AppendContextKey(nil, Timer, []byte(name), Host{}, nil, nil))
		b.Add(c, Series{Context: 77, Value: 1, Time: 2, Type: GaugeType, Suffix: 3})
		s := b.Series[len(b.Series)-1]
		if b.Context(&s) != c {
			t.Errorf("the context of %s is %s", name, b.Context(&s).Name())
		}
		if s.Context = 0; s != (Series{Value: 1, Time: 2, Type: GaugeType, Suffix: 3}) {
			t.Errorf("%s became %+v", name, s)
		}
	}
	if len(b.Series) != 2 || b.Context(&b.Series[0]).Name() != "one" {
		t.Errorf("%d series, the first of %s", len(b.Series), b.Context(&b.Series[0]).Name())
	}
}

// There are a million in a batch: they stay small, and the garbage collector need not
// look into them.
func TestSeriesAreSmall(t *testing.T) {
	if size := unsafe.Sizeof(Series{}); size != 24 {
		t.Errorf("a series takes %d bytes", size)
	}
	if hasPointers(reflect.TypeFor[Series]()) {
		t.Error("a series has pointers")
	}
	if !hasPointers(reflect.TypeFor[SketchPoint]()) {
		t.Error("the pointers of a sketch are not seen")
	}
}

func hasPointers(t reflect.Type) bool {
	switch kind := t.Kind(); kind {
	case reflect.Struct:
		for i := range t.NumField() {
			if hasPointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	case reflect.Array:
		return hasPointers(t.Elem())
	default:
		return kind < reflect.Bool || kind > reflect.Complex128
	}
}
