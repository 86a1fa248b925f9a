package aggregator

// pieces is a list that grows without copying.
type pieces[T any] struct {
	all   [][]T
	count int
}

const pieceLen = 64

func (p *pieces[T]) add(v T) {
	if p.count%pieceLen == 0 {
		p.all = append(p.all, make([]T, 0, pieceLen))
	}
	last := &p.all[len(p.all)-1]
	*last = append(*last, v)
	p.count++
}

func (p *pieces[T]) appendTo(dst []T) []T {
	for _, some := range p.all {
		dst = append(dst, some...)
	}
	return dst
}
