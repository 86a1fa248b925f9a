package parser

import (
	"bytes"

	"github.com/weir-agent/weir/metric"
)

// originField reads a field that says where a line comes from, and reports
// whether it is one:
//
//	c:ID  c:ci-ID  c:cid-ID  c:in-INODE  c:ci-ID,in-INODE   the container
//	e:it-BOOL,cn-NAME,pu-UID                                its name, its pod's uid
//	card:WORD                                               which tags to add
//
// What is unknown in it is ignored.
func originField(field []byte, o *metric.Origin) bool {
	switch {
	case bytes.HasPrefix(field, []byte("c:")):
		o.Container, o.Inode = nil, nil
		for more, rest := true, field[2:]; more; {
			var item []byte
			item, rest, more = cut(rest, ',')
			switch {
			case bytes.HasPrefix(item, []byte("ci-")):
				o.Container = item[3:]
			case bytes.HasPrefix(item, []byte("cid-")):
				o.Container = item[4:]
			case bytes.HasPrefix(item, []byte("in-")):
				o.Inode = item[3:]
			case len(item) > 0 && o.Container == nil: // the first form, which had no prefix
				o.Container = item
			}
		}
	case bytes.HasPrefix(field, []byte("e:")):
		o.ContainerName, o.PodUID = nil, nil
		for more, rest := true, field[2:]; more; {
			var item []byte
			item, rest, more = cut(rest, ',')
			switch {
			case bytes.HasPrefix(item, []byte("cn-")):
				o.ContainerName = item[3:]
			case bytes.HasPrefix(item, []byte("pu-")):
				o.PodUID = item[3:]
			}
		}
	case bytes.HasPrefix(field, []byte("card:")):
		o.Cardinality = field[5:]
	default:
		return false
	}
	return true
}
