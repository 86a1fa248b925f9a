package metric

// Candidate is a context before it is looked for: a guard may rewrite its tags, its
// host and its device so that it becomes one of fewer. What it points to is borrowed.
type Candidate struct {
	Kind   Kind
	Name   []byte
	Host   Host
	Device []byte
	Tags   [][]byte // sorted, without repeats
	Budget *Budget  // of the rule that it met; nil: none

	Sighting Sighting // the guard's, of this candidate
}

// AppendKey appends the canonical bytes of the candidate's context to dst.
func (c *Candidate) AppendKey(dst []byte) []byte {
	return AppendContextKey(dst, c.Kind, c.Name, c.Host, c.Device, c.Tags)
}

// Sighting is what a guard knows of a candidate. Whoever remembers where the samples
// of a candidate go remembers it, too, and tells the guard how many there were.
type Sighting struct {
	Metric      uint32   // the guard's number of the metric
	Version     uint64   // of the folds in force; 0: there are none, and nothing to tell
	Raw, Folded uint64   // hash of all tags as sent, and as rewritten
	Values      []uint64 // hash of the tag of each folded key, in the order of the folds; 0: it has none
}

// Member is a context that a guard may have to fold.
type Member struct {
	Context *Context
	Age     uint32 // intervals in which it had samples
	Stale   bool   // folded already, and about to be forgotten
}
