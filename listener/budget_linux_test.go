package listener

import (
	"fmt"
	"net"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkReceiveSaturated drains a socket that is full, with no sender running. The
// floor is the same system calls and nothing else.
func BenchmarkReceiveSaturated(b *testing.B) {
	for _, size := range []int{40, 1432} {
		for _, floor := range []bool{false, true} {
			name := fmt.Sprintf("bytes=%d", size)
			if floor {
				name += "/floor"
			}
			b.Run(name, func(b *testing.B) {
				s, err := openSocket(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, 4<<20, true)
				if err != nil {
					b.Fatal(err)
				}
				defer s.close()
				client, err := net.Dial("udp", boundTo(s.fd).String())
				if err != nil {
					b.Fatal(err)
				}
				defer client.Close()
				d, payload := newDrain(8192, nil), make([]byte, size)
				received, each := 0, len(payload)+2304
				for b.Loop() {
					b.StopTimer()
					for range receiveBufferOf(s.fd) / each {
						if _, err := client.Write(payload); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
					for {
						n := 0
						if floor {
							got, _, _ := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&d.headers[0])), packetsAtOnce, unix.MSG_DONTWAIT, 0, 0)
							n = max(0, int(got))
						} else {
							found, err := d.all(s.fd, func([]Packet) {})
							if err != nil {
								b.Fatal(err)
							}
							n = found.datagrams
						}
						if received += n; n < packetsAtOnce {
							break
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(received), "ns/datagram")
			})
		}
	}
}
