package metric

import (
	"bytes"
	"iter"
	"strings"
	"unsafe"
)

// separator joins the parts of a context's key. No name and no tag contains it:
// it ends a line on the wire, and the configuration refuses it.
const separator = '\n'

// Context is an identity as Datadog counts it: kind, name, host, device and a
// sorted set of tags. It is immutable, so a Batch may refer to it long after
// the aggregator has forgotten it.
//
// Because an agent holds a million, it has no pointers: a *Context points to a header,
// and the bytes of its key follow in memory. So a Context is made by NewContext or
// PlaceContext and never copied.
type Context struct {
	length  uint32 // of the key
	nameEnd uint32
	hostEnd uint32
	tags    uint32 // where they begin
}

const (
	word          = 4
	contextHeader = unsafe.Sizeof(Context{})
)

// hostFlag is the second byte of a key.
const (
	defaultHost  = 'a' // the agent's own host
	explicitHost = 'x' // the one the client named, possibly none
)

// Host is whom a sample belongs to: the zero Host is the agent's own.
type Host struct {
	Explicit bool
	Name     []byte // "" with Explicit set: no host at all
}

// AppendContextKey appends the canonical bytes of a context to dst: two lines
// belong to one context exactly if these are equal. Tags must be sorted and
// free of repeats.
func AppendContextKey(dst []byte, kind Kind, name []byte, host Host, device []byte, tags [][]byte) []byte {
	flag := byte(defaultHost)
	if host.Explicit {
		flag = explicitHost
	}
	dst = append(dst, byte(kind), flag)
	dst = append(dst, name...)
	dst = append(dst, separator)
	dst = append(dst, host.Name...)
	dst = append(dst, separator)
	dst = append(dst, device...)
	for _, tag := range tags {
		dst = append(dst, separator)
		dst = append(dst, tag...)
	}
	return dst
}

// NewContext returns the context of a key made by AppendContextKey, in memory of its own.
func NewContext(key []byte) *Context {
	return PlaceContext(make([]uint32, ContextWords(len(key))), key)
}

// ContextWords returns how many words of memory a context takes whose key has so many
// bytes.
func ContextWords(keyLen int) int {
	return (int(contextHeader) + keyLen + word - 1) / word
}

// PlaceContext is NewContext at the beginning of memory, which must have ContextWords and
// not be changed any more.
func PlaceContext(memory []uint32, key []byte) *Context {
	const head = 2
	nameEnd := head + bytes.IndexByte(key[head:], separator)
	hostEnd := nameEnd + 1 + bytes.IndexByte(key[nameEnd+1:], separator)
	tags := len(key)
	if i := bytes.IndexByte(key[hostEnd+1:], separator); i >= 0 {
		tags = hostEnd + 1 + i
	}
	memory = memory[:ContextWords(len(key))]
	c := ContextAt(memory)
	*c = Context{uint32(len(key)), uint32(nameEnd), uint32(hostEnd), uint32(tags)}
	copy(unsafe.Slice(c.keyStart(), len(key)), key)
	return c
}

// ContextAt returns the context that PlaceContext put at the beginning of memory.
func ContextAt(memory []uint32) *Context { return (*Context)(unsafe.Pointer(&memory[0])) }

func (c *Context) keyStart() *byte { return (*byte)(unsafe.Add(unsafe.Pointer(c), contextHeader)) }

// Key returns the canonical bytes, as AppendContextKey writes them.
func (c *Context) Key() string { return unsafe.String(c.keyStart(), c.length) }

// Kind returns what kind of samples the context takes.
func (c *Context) Kind() Kind { return Kind(c.Key()[0]) }

// Name returns the metric's name.
func (c *Context) Name() string { return c.Key()[2:c.nameEnd] }

// Host returns the host the context belongs to: agentHost unless a tag named
// another. "" means none.
func (c *Context) Host(agentHost string) string {
	if c.Key()[1] == defaultHost {
		return agentHost
	}
	return c.Key()[c.nameEnd+1 : c.hostEnd]
}

// ExplicitHost returns the host that a tag named, possibly "": none; explicit is false
// if the context belongs to the agent's.
func (c *Context) ExplicitHost() (host string, explicit bool) {
	if c.Key()[1] == defaultHost {
		return "", false
	}
	return c.Key()[c.nameEnd+1 : c.hostEnd], true
}

// Device returns the value of the last "device:" tag, "" if there was none.
func (c *Context) Device() string { return c.Key()[c.hostEnd+1 : c.tags] }

// Tags yields the tags in order, without "host:" and "device:".
func (c *Context) Tags() iter.Seq[string] {
	return func(yield func(string) bool) {
		rest := c.Key()[c.tags:]
		for len(rest) > 0 { // rest begins with a separator
			rest = rest[1:]
			tag := rest
			if i := strings.IndexByte(rest, separator); i >= 0 {
				tag, rest = rest[:i], rest[i:]
			} else {
				rest = ""
			}
			if !yield(tag) {
				return
			}
		}
	}
}
