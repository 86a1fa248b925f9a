package raw

import "math/bits"

// code is some bits, the lowest first.
type code struct {
	bits uint32
	n    uint8
}

// codes are the Huffman codes of all files: a block begins with header, which tells them.
var codes = newCodeTable(commonness())

type codeTable struct {
	letters [256]code
	lengths [maxRepetition + 1]code // of repetitions, with the bits behind the code
	end     code                    // of a block
	backs   [backCodes]code
	header  []code
}

const (
	lengthCodes   = 29
	symbols       = 257 + lengthCodes // letters, the end of a block, lengths
	backCodes     = 30
	maxSymbolBits = 15
)

// commonness says how often each symbol is met, about, in rows of which half are
// pseudonyms: letters of base64, and of these hexadecimal digits more often.
func commonness() (weights [symbols]int) {
	for i := range weights {
		switch letter := byte(i); {
		case i > 257+lengthCodes-2: // as long as can be
			weights[i] = 200
		case i > 256:
			weights[i] = 15
		case i == 256:
			weights[i] = 1
		case letter >= '0' && letter <= '9', letter >= 'a' && letter <= 'f':
			weights[i] = 80
		case letter >= 'g' && letter <= 'z', letter >= 'A' && letter <= 'Z', letter == '-', letter == '_':
			weights[i] = 60
		case letter >= ' ' && letter < 0x7f:
			weights[i] = 8
		case letter >= 0x80:
			weights[i] = 4
		default:
			weights[i] = 1
		}
	}
	return weights
}

// newCodeTable makes the codes for symbols that are so common.
func newCodeTable(weights [symbols]int) *codeTable {
	t := &codeTable{}
	sizes := huffman(weights[:])
	all := canonical(sizes)
	copy(t.letters[:], all)
	t.end = all[256]
	lengths := all[257:]
	for i, first := 0, 3; i < lengthCodes; i++ {
		extra := max(i/4-1, 0)
		if i == lengthCodes-1 {
			first, extra = maxRepetition, 0
		}
		for j := 0; j < 1<<extra && first+j <= maxRepetition; j++ {
			t.lengths[first+j] = code{lengths[i].bits | uint32(j)<<lengths[i].n, lengths[i].n + uint8(extra)}
		}
		first += 1 << extra
	}
	backs := make([]uint8, backCodes)
	for i := range backs {
		switch {
		case i >= 16 && i < 20: // 257 to 1024, where the last row mostly is
			backs[i] = 3
		case i >= 20 && i < 26:
			backs[i] = 5
		default:
			backs[i] = 6
		}
	}
	copy(t.backs[:], canonical(backs))
	t.header = headerOf(append(sizes, backs...))
	return t
}

// headerOf returns what begins a block with codes of these sizes: not the last one, its
// codes in it, and each size in four bits.
func headerOf(sizes []uint8) []code {
	const sizeCodes = 19
	header := []code{{0b100, 3}, {symbols - 257, 5}, {backCodes - 1, 5}, {sizeCodes - 4, 4}}
	for i := range sizeCodes {
		if i < 3 { // those for repeated sizes
			header = append(header, code{0, 3})
		} else {
			header = append(header, code{4, 3})
		}
	}
	for _, size := range sizes {
		header = append(header, code{uint32(bits.Reverse8(size) >> 4), 4})
	}
	return header
}

// codeOfBack returns the code for a distance, with the bits behind it.
func codeOfBack(back int) (c uint64, n uint) {
	x := uint32(back - 1)
	if x < 4 {
		code := codes.backs[x]
		return uint64(code.bits), uint(code.n)
	}
	extra := uint(bits.Len32(x)) - 2
	code := codes.backs[2*extra+uint(x>>extra)]
	return uint64(code.bits) | uint64(x&(1<<extra-1))<<code.n, uint(code.n) + extra
}

// huffman returns how many bits each symbol's code has.
func huffman(weights []int) []uint8 {
	type tree struct {
		weight  int
		symbols []int
	}
	var trees []tree
	for i, w := range weights {
		trees = append(trees, tree{w, []int{i}})
	}
	sizes := make([]uint8, len(weights))
	lightest := func() tree {
		at := 0
		for i := range trees {
			if trees[i].weight < trees[at].weight {
				at = i
			}
		}
		found := trees[at]
		trees[at] = trees[len(trees)-1]
		trees = trees[:len(trees)-1]
		return found
	}
	for len(trees) > 1 {
		a, b := lightest(), lightest()
		both := tree{a.weight + b.weight, append(a.symbols, b.symbols...)}
		for _, i := range both.symbols {
			if sizes[i]++; sizes[i] > maxSymbolBits {
				panic("BUG: a code is too long")
			}
		}
		trees = append(trees, both)
	}
	return sizes
}

// canonical returns the codes that follow from their sizes (RFC 1951, 3.2.2), turned
// around: they are written from the highest bit.
func canonical(sizes []uint8) []code {
	list := make([]code, len(sizes))
	next := uint32(0)
	for size := uint8(1); size <= maxSymbolBits; size++ {
		next <<= 1
		for i, s := range sizes {
			if s == size {
				list[i] = code{bits.Reverse32(next) >> (32 - size), size}
				next++
			}
		}
	}
	return list
}
