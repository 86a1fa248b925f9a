package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/listener"
)

// newSendCommand returns `weir send LINE…`, a client for trying things out.
func newSendCommand(configFile *string) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "send LINE...",
		Short: "Send lines to an agent, each in a packet of its own",
		Example: `  weir send 'page.views:1|c|#env:dev' 'load:0.7|g'
  weir send --to unixgram:///run/weir/dogstatsd.sock 'page.views:1|c'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, lines []string) error {
			if to == "" {
				cfg, _, err := load(*configFile)
				if err != nil {
					return err
				}
				if to = clientAddress(cfg); to == "" {
					return errors.New("send: the configuration names no address; name the agent's with --to")
				}
			}
			return send(to, lines)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", `address of the agent: udp://HOST:PORT, tcp://HOST:PORT, unixgram:///PATH, unix:///PATH,
or HOST:PORT for UDP (default: of the configuration, the first of udp, unix_datagram, tcp, unix_stream)`)
	return cmd
}

// clientAddress returns where a client on this machine reaches the agent; "" if the
// configuration does not say.
func clientAddress(cfg config.Config) string {
	l := cfg.Listen
	switch {
	case l.UDP != "":
		return "udp://" + local(l.UDP)
	case l.UnixDatagram != "":
		return "unixgram://" + l.UnixDatagram
	case l.TCP != "":
		return "tcp://" + local(l.TCP)
	case l.UnixStream != "":
		return "unix://" + l.UnixStream
	}
	return ""
}

// local puts this machine in the place of all addresses.
func local(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func send(to string, lines []string) error {
	network, address, found := strings.Cut(to, "://")
	if !found {
		network, address = listener.UDP, to
	}
	frame := func(line string) []byte { return []byte(line) }
	switch network {
	case "udp", "unixgram":
	case "tcp":
		frame = func(line string) []byte { return []byte(line + "\n") }
	case "unix":
		frame = func(line string) []byte {
			return append(binary.LittleEndian.AppendUint32(nil, uint32(len(line))), line...)
		}
	default:
		return fmt.Errorf("send: there is no network %q; write udp://, tcp://, unixgram:// or unix:// and an address", network)
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		return explainSend(err, to)
	}
	defer conn.Close()
	for _, line := range lines {
		if _, err := conn.Write(frame(line)); err != nil {
			return explainSend(err, to)
		}
	}
	if network != "udp" {
		return nil
	}
	// UDP does not say that a datagram arrived; but if nobody listens on this
	// machine, the kernel says so at once to whoever reads.
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	var answer [1]byte
	if _, err := conn.Read(answer[:]); errors.Is(err, syscall.ECONNREFUSED) {
		return explainSend(err, to)
	}
	return nil
}

func explainSend(err error, to string) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("send: nobody listens on %s; start the agent or name its address with --to", to)
	case errors.Is(err, syscall.EPROTOTYPE):
		return fmt.Errorf("send: the socket of %s is of the other kind; use unixgram:// for datagrams and unix:// for streams", to)
	case errors.Is(err, syscall.EMSGSIZE):
		return errors.New("send: the line is longer than a datagram can be")
	}
	return fmt.Errorf("send to %s: %w", to, err)
}
