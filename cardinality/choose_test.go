package cardinality

import (
	"fmt"
	"slices"
	"testing"
)

// choiceOf returns the choice among contexts, each with a value of each key.
func choiceOf(keys []string, contexts int, values func(context int) []string) *choice {
	h := newHasher()
	c := &choice{}
	for _, key := range keys {
		c.keys = append(c.keys, choiceKey{name: key, other: h.bytes([]byte(key + ":" + otherValue))})
	}
	for i := range contexts {
		row := choiceRow{}
		for k, value := range values(i) {
			hash := h.bytes([]byte(keys[k] + ":" + value))
			c.values = append(c.values, hash)
			row.sum += hash
		}
		c.rows = append(c.rows, row)
	}
	return c
}

func (c *choice) namesOf(folded []int) (names []string) {
	for _, i := range folded {
		names = append(names, c.keys[i].name)
	}
	slices.Sort(names)
	return names
}

// A key that looked best at first is left out if others, found later, do without it.
func TestKeysThatAreNotNeededAreLeftOut(t *testing.T) {
	c := choiceOf([]string{"shard", "request", "trace"}, 120, func(i int) []string {
		id := fmt.Sprint(i / 3)
		return []string{fmt.Sprint(i % 3), id, id}
	})
	folded, left := c.find(15, 0, maxFolds)
	if got := c.namesOf(folded); !slices.Equal(got, []string{"request", "trace"}) || left != 3 {
		t.Errorf("%q are folded, %d contexts are left; want request and trace, and 3", got, left)
	}
}

// Of keys none of which alone leaves fewer contexts, those with the most values come
// first: no place is wasted on others.
func TestKeysThatChangeTogetherAreFoundAtOnce(t *testing.T) {
	c := choiceOf([]string{"endpoint", "request", "trace"}, 300, func(i int) []string {
		return []string{fmt.Sprint(i % 10), fmt.Sprint(i), fmt.Sprint(i)}
	})
	folded, left := c.find(100, 0, 2)
	if got := c.namesOf(folded); !slices.Equal(got, []string{"request", "trace"}) || left != 10 {
		t.Errorf("%q are folded, %d contexts are left; want request and trace, and 10", got, left)
	}
}

// The values that keep their series when a key is folded are those with the most
// contexts for the longest time, not those that happen to come first.
func TestTheMostFrequentValuesAreKept(t *testing.T) {
	c := choiceOf([]string{"endpoint", "user"}, 700, func(i int) []string {
		if i < 600 {
			return []string{"x", fmt.Sprint("once", i)}
		}
		return []string{fmt.Sprint(i), fmt.Sprint("user", i%10)}
	})
	for i := range c.rows {
		switch i % 10 { // of the users, by how many intervals they were there
		case 3, 7:
			c.rows[i].age = 9
		default:
			c.rows[i].age = 5
		}
		if i < 600 {
			c.rows[i].age = 2
		}
	}
	c.rank(1, 2)
	h3, h7 := c.value(603, 1), c.value(607, 1)
	if kept := c.keys[1].kept; len(kept) != 2 || !kept[h3] || !kept[h7] {
		t.Errorf("%d values are kept, user3 %v, user7 %v; want these two", len(kept), kept[h3], kept[h7])
	}
}
