// Command capture records what real StatsD clients send when a large web service uses
// them, so that a configuration can be tried against it.
//
//	go run ./bench/capture -out capture.txt
//	go run ./bench/capture -out capture.txt -listen 127.0.0.1:8125
//
// The second records what clients of one's own send there, until it is interrupted.
//
// In: a seed. Out: a file with a line for each metric, as the clients wrote it. The
// same seed makes the same calls; clients may send them in another order. Datadog's
// client for Go takes part always, aiodogstatsd (Python) and hot-shots (Node) where
// they are installed; what one of them would have sent is then sent by the others.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	_ "embed"
)

func main() {
	out := flag.String("out", "", "the `file` to write; \"\": standard output")
	seed := flag.Uint64("seed", 1, "of the traffic")
	calls := flag.Int("calls", 300_000, "metrics to send, about")
	listenTo := flag.String("listen", "", "record what comes by UDP to this `address`, and send nothing")
	modules := flag.String("modules", ".ci/node_modules", "the `folder` where hot-shots is installed")
	list := flag.Bool("list", false, "print the names of the metrics instead, one a line, those with a tag that explodes last, with the tag")
	flag.Parse()
	if *list {
		for _, m := range model() {
			fmt.Println(m.name, m.guilty)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *listenTo, *seed, *calls, *modules); err != nil {
		fmt.Fprintln(os.Stderr, "capture:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, address string, seed uint64, calls int, modules string) error {
	file := os.Stdout
	if out != "" {
		var err error
		if file, err = os.Create(out); err != nil {
			return err
		}
		defer file.Close()
	}
	r, err := listen(cmp.Or(address, "127.0.0.1:0"), file)
	if err != nil {
		return err
	}
	if address != "" {
		<-ctx.Done()
		err := r.close()
		fmt.Fprintf(os.Stderr, "%d lines\n", r.lines)
		return err
	}
	err = errors.Join(drive(ctx, r, seed, calls, clients(modules)), r.close())
	fmt.Fprintf(os.Stderr, "%d lines of %d calls\n", r.lines, calls)
	return err
}

// recorder writes the lines of datagrams to a file.
type recorder struct {
	conn  *net.UDPConn
	out   *bufio.Writer
	ended chan error

	mu    sync.Mutex // guards the fields below
	lines int
}

func listen(address string, w io.Writer) (*recorder, error) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", to)
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(16 << 20) // less is what the kernel gives, and clients are paced
	r := &recorder{conn: conn, out: bufio.NewWriterSize(w, 1<<20), ended: make(chan error, 1)}
	go func() { r.ended <- r.record() }()
	return r, nil
}

func (r *recorder) record() error {
	packet := make([]byte, 64<<10)
	for {
		n, err := r.conn.Read(packet)
		if errors.Is(err, net.ErrClosed) {
			return r.out.Flush()
		}
		if err != nil {
			return err
		}
		text := bytes.TrimRight(packet[:n], "\n")
		if _, err := r.out.Write(append(text, '\n')); err != nil {
			return err
		}
		r.mu.Lock()
		r.lines += 1 + bytes.Count(text, []byte{'\n'})
		r.mu.Unlock()
	}
}

func (r *recorder) seen() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines
}

// close ends the recording once nothing has come for a while.
func (r *recorder) close() error {
	for before := -1; before != r.seen(); time.Sleep(200 * time.Millisecond) {
		before = r.seen()
	}
	r.conn.Close()
	return <-r.ended
}

// paced is how many calls may be ahead of what was recorded.
const paced = 2000

// drive makes the calls, each by the next client.
func drive(ctx context.Context, r *recorder, seed uint64, calls int, starts []starter) error {
	address := r.conn.LocalAddr().(*net.UDPAddr)
	var using []client
	for _, start := range starts {
		c, err := start(ctx, address)
		if err != nil {
			fmt.Fprintln(os.Stderr, "capture: goes without a client:", err)
			continue
		}
		using = append(using, c)
	}
	sent := 0
	for c := range traffic(seed, calls) {
		if ctx.Err() != nil {
			break
		}
		if err := using[sent%len(using)].call(c); err != nil {
			return err
		}
		if sent++; sent%paced == 0 {
			for waited := 0; sent-r.seen() > paced && waited < 100; waited++ {
				time.Sleep(time.Millisecond) // clients write when they have a full datagram
			}
		}
	}
	var errs []error
	for _, c := range using {
		errs = append(errs, c.close())
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// client is a real client at work.
type client interface {
	call(call) error
	close() error
}

type starter func(context.Context, *net.UDPAddr) (client, error)

var (
	//go:embed clients/aiodogstatsd.py
	pythonScript string
	//go:embed clients/hotshots.js
	nodeScript string
)

func clients(modules string) []starter {
	return []starter{
		startGo,
		script("/usr/bin/python3", "-c", pythonScript),
		script("node", "-e", nodeScript, modules+"/hot-shots"),
	}
}

// scripted is a client in another language: it reads calls as JSON, a line each.
type scripted struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	to  *json.Encoder
	buf *bufio.Writer
}

// script returns what starts a client in another language. It says "ready" when it is.
func script(command string, args ...string) starter {
	return func(ctx context.Context, to *net.UDPAddr) (client, error) {
		cmd := exec.CommandContext(ctx, command, append(args, to.IP.String(), fmt.Sprint(to.Port))...)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		if word, err := bufio.NewReader(out).ReadString('\n'); err != nil || word != "ready\n" {
			return nil, fmt.Errorf("%s: %w", command, errors.Join(err, cmd.Wait()))
		}
		buf := bufio.NewWriterSize(in, 64<<10)
		return &scripted{cmd, in, json.NewEncoder(buf), buf}, nil
	}
}

func (s *scripted) call(c call) error { return s.to.Encode(c) }

func (s *scripted) close() error {
	return errors.Join(s.buf.Flush(), s.in.Close(), s.cmd.Wait())
}
