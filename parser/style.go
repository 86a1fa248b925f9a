package parser

import (
	"bytes"

	"github.com/weir-agent/weir/metric"
)

// splitInflux reads "name,tag=value,tag=value".
func splitInflux(name []byte, id *metric.Identity) metric.Reason {
	name, tags, _ := cut(name, ',')
	return named(name, tags, ',', id)
}

// splitGraphite reads "name;tag=value;tag=value".
func splitGraphite(name []byte, id *metric.Identity) metric.Reason {
	name, tags, _ := cut(name, ';')
	return named(name, tags, ';', id)
}

// splitSignalFx reads "name[tag=value,tag=value]". The brackets may be anywhere;
// what is before and behind them is the name.
func splitSignalFx(name []byte, id *metric.Identity) metric.Reason {
	open := bytes.IndexByte(name, '[')
	if open < 0 {
		id.Name = name
		return metric.Accepted
	}
	length := bytes.IndexByte(name[open:], ']')
	if length < 0 {
		return metric.UnclosedTags
	}
	before, tags, after := name[:open], name[open+1:open+length], name[open+length+1:]
	if len(after) > 0 {
		start := len(id.Styled)
		id.Styled = append(append(id.Styled, before...), after...)
		before = id.Styled[start:len(id.Styled):len(id.Styled)]
	}
	return named(before, tags, ',', id)
}

// named sets the name of id and the tags that stood in it: "key=value" becomes
// "key:value", and what has no '=' stays as it is.
func named(name, tags []byte, separator byte, id *metric.Identity) metric.Reason {
	if len(name) == 0 {
		return metric.NoName
	}
	id.Name = name
	for more := true; more; {
		var tag []byte
		tag, tags, more = cut(tags, separator)
		if len(tag) == 0 {
			continue
		}
		if equals := bytes.IndexByte(tag, '='); equals >= 0 {
			start := len(id.Styled)
			id.Styled = append(id.Styled, tag...)
			id.Styled[start+equals] = ':'
			tag = id.Styled[start:len(id.Styled):len(id.Styled)]
		}
		id.Tags = append(id.Tags, tag)
	}
	return metric.Accepted
}
