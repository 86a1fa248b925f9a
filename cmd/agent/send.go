package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-agent/weir/config"
)

// newSendCommand returns `weir send LINE…`, a client for trying things out.
func newSendCommand(configFile *string) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:     "send LINE...",
		Short:   "Send lines to an agent by UDP, each in a datagram of its own",
		Example: "  weir send 'page.views:1|c|#env:dev' 'load:0.7|g'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, lines []string) error {
			if to == "" {
				cfg, _, err := load(*configFile)
				if err != nil {
					return err
				}
				to = clientAddress(cfg)
			}
			return send(to, lines)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "address of the agent (default: listen.udp of the configuration)")
	return cmd
}

// clientAddress returns where a client on this machine reaches the agent.
func clientAddress(cfg config.Config) string {
	host, port, err := net.SplitHostPort(cfg.Listen.UDP)
	if err != nil {
		return cfg.Listen.UDP
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func send(to string, lines []string) error {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	defer conn.Close()
	for _, line := range lines {
		if _, err := conn.Write([]byte(line)); err != nil {
			return explainSend(err, to)
		}
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
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("send: nobody listens on %s; start the agent or name its address with --to", to)
	case errors.Is(err, syscall.EMSGSIZE):
		return errors.New("send: the line is longer than a datagram can be")
	}
	return fmt.Errorf("send to %s: %w", to, err)
}
