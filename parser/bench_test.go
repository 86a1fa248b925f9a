package parser

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/weir-agent/weir/metric"
)

// packetBytes is what clients pack into a datagram on Ethernet.
const packetBytes = 1432

// packedLines fills one datagram with counters of tags tags each.
func packedLines(tags int) (packet []byte, lines int) {
	for {
		line := fmt.Appendf(nil, "http.server.requests.%d:%d|c", lines%7, lines%9+1)
		for tag := range tags {
			separator := ","
			if tag == 0 {
				separator = "|#"
			}
			line = fmt.Appendf(line, "%skey%d:value%d", separator, tag, lines%5)
		}
		line = append(line, '\n')
		if len(packet)+len(line) > packetBytes {
			return packet, lines
		}
		packet = append(packet, line...)
		lines++
	}
}

func BenchmarkPacket(b *testing.B) {
	for _, tags := range []int{0, 3, 8} {
		b.Run(fmt.Sprintf("tags=%d", tags), func(b *testing.B) {
			packet, count := packedLines(tags)
			var lines metric.Lines
			b.SetBytes(int64(len(packet)))
			b.ReportAllocs()
			for b.Loop() {
				lines.Reset()
				dogstatsd.Packet(packet, false, &lines)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(count), "ns/line")
		})
	}
}

// BenchmarkPacketFloor only finds the ends of lines, names and values in the packet of
// BenchmarkPacket.
func BenchmarkPacketFloor(b *testing.B) {
	packet, count := packedLines(3)
	sum := 0
	for b.Loop() {
		for rest := packet; len(rest) > 0; {
			line, next, _ := bytes.Cut(rest, []byte{'\n'})
			colon := bytes.IndexByte(line, ':')
			sum += colon + bytes.IndexByte(line[colon:], '|')
			rest = next
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(count), "ns/line")
	if sum == 0 {
		b.Fatal("found nothing")
	}
}

func BenchmarkDescribe(b *testing.B) {
	for _, tail := range []string{"c", "c|#a:b,c:d,e:f", "ms|@0.5|#a:b,c:d,e:f|c:ci-83c0a99c0a54c0c187f461c7980e9b57"} {
		b.Run(tail, func(b *testing.B) {
			var lines metric.Lines
			dogstatsd.Packet([]byte("http.server.requests:1|"+tail), false, &lines)
			var id metric.Identity
			b.ReportAllocs()
			for b.Loop() {
				dogstatsd.Describe(&lines.Samples[0], &id)
			}
		})
	}
}
