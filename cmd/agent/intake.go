package main

import (
	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// samplesAtOnce is how many samples are gathered from packets before they are
// added: enough for the cache misses of their lookups to overlap, few enough to
// stay in the first-level cache.
const samplesAtOnce = 128

// textAtOnce bounds what is gathered of lines that were written anew.
const textAtOnce = 64 << 10

// intake takes one reader's packets to its worker. It runs on the reader.
type intake struct {
	parser *parser.Parser
	worker *aggregator.Worker
	lines  metric.Lines
}

// packet parses one packet of a sender, "" if that is not known. The samples may
// wait for others until end is called; the packet must not change before.
func (in *intake) packet(packet []byte, cut bool, sender string) {
	if sender != in.lines.Sender {
		in.end()
		in.lines.Sender = sender
	}
	in.lines.Packets++
	in.parser.Packet(packet, cut, &in.lines)
	if l := &in.lines; len(l.Samples)+len(l.Events)+len(l.Checks) >= samplesAtOnce || len(l.Text) > textAtOnce {
		in.end()
	}
}

// end adds what the packets since the last call held.
func (in *intake) end() {
	in.worker.Add(&in.lines)
	in.lines.Reset()
}
