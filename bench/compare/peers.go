//go:build linux

package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"text/template"
	"time"
)

//go:embed peers
var configurations embed.FS

// server is one that can be started: Weir, a peer or the floor.
type server struct {
	name    string
	version string
	remark  string // what a reader of the report has to know
	names   bool   // it knows no tags: contexts are in the names
	tags    bool   // it reads DogStatsD's tags
	kinds   string // bench/load's -kinds of the mix
	command []string
	env     []string
	root    string
	scrape  string // the path by which it is scraped
	floor   bool

	// What it says itself; each may be nil.
	lost           func(*instance) uint64            // datagrams that a queue of its own has dropped so far
	late           time.Duration                     // after which lost knows them all
	count          func(*instance, *counted) error   // see ledger
	countsAtItsEnd bool                              // count is for a server that has ended
	flush          func(*instance) (longest float64) // seconds
}

// places is where to look for servers.
type places struct {
	weir, self string
	peers      string // what peers.sh has made
	modules    string // where npm packages are
}

// find returns the servers that are there, and says what is missing.
func find(at places, say func(string)) []*server {
	debian := filepath.Join(at.peers, "debian")
	libraries := []string{"LD_LIBRARY_PATH=" + filepath.Join(debian, "usr/lib/x86_64-linux-gnu") + ":" + filepath.Join(debian, "usr/lib/aarch64-linux-gnu")}
	exporter, telegraf := at.binary("bin/statsd_exporter"), at.binary("bin/telegraf")
	collectd, netdata := at.binary("debian/usr/sbin/collectd"), at.binary("debian/usr/sbin/netdata")
	etsy := ""
	for _, folder := range []string{filepath.Join(at.peers, "node_modules"), at.modules} {
		if file := filepath.Join(folder, "statsd/stats.js"); etsy == "" && isFile(file) {
			etsy, _ = filepath.Abs(file)
		}
	}
	node, _ := exec.LookPath("node")
	if node == "" {
		etsy = ""
	}
	all := []*server{
		{
			name: "weir", tags: true, names: true, kinds: "mix", command: []string{at.weir, "--config", "{{.Dir}}/weir.yaml"},
			version: word(output(nil, at.weir, "version"), `^weir (.+?)\s*$`), remark: "writes each point as JSON",
			count: countOfWeir, countsAtItsEnd: true, flush: flushOfWeir,
		},
		{
			name: floorName, tags: true, names: true, floor: true, command: []string{at.self, "-floor", "127.0.0.1:{{.Port}}"},
			remark: "a bare loop that counts bytes, with a pause like Weir's, at Weir's rates", count: countOfFloor, countsAtItsEnd: true,
		},
		{
			name: "statsd_exporter", tags: true, kinds: "mix", scrape: "/metrics", remark: "has no sets; scraped every 10 s; its queue drops beyond the kernel's; its flush is a scrape",
			lost: lostByExporter, count: countOfExporter, flush: flushOfExporter,
			command: []string{
				exporter, "--statsd.listen-udp=127.0.0.1:{{.Port}}", "--statsd.listen-tcp=", "--web.listen-address=127.0.0.1:{{.AdminPort}}",
				"--statsd.read-buffer=4194304", "--no-statsd.parse-influxdb-tags", "--no-statsd.parse-librato-tags", "--no-statsd.parse-signalfx-tags", "--log.level=error",
			},
		},
		{
			name: "telegraf", tags: true, kinds: "mix", remark: "its queue drops beyond the kernel's; it keeps 1,000 values of a timer",
			lost: lostByTelegraf, late: 2500 * time.Millisecond, count: countOfTelegraf,
			command: []string{telegraf, "--config", "{{.Dir}}/telegraf.conf"},
		},
		{
			name: "etsy statsd", tags: true, names: true, kinds: "mix-statsd", remark: "knows no histograms and distributions: timers instead",
			command: []string{node, etsy, "{{.Dir}}/config.js"}, count: countOfEtsy, countsAtItsEnd: true, flush: flushOfEtsy,
		},
		{
			name: "collectd", names: true, kinds: "mix-statsd", root: debian, env: libraries, remark: "counts nothing that it receives",
			command: []string{collectd, "-f", "-C", "{{.Dir}}/collectd.conf"},
		},
		{
			name: "netdata", names: true, kinds: "mix-statsd", env: libraries, remark: "shows at most 200 metrics of its own accord, collects all; what it counts is not asked for",
			command: []string{netdata, "-D", "-c", "{{.Dir}}/netdata.conf"},
		},
	}
	var found []*server
	for _, s := range all {
		missing := s.command[0] == ""
		if s.name == "etsy statsd" {
			missing = etsy == ""
		}
		if missing {
			say(s.name + " is not there: bench/compare/peers.sh installs what can be had")
			continue
		}
		switch s.name {
		case "statsd_exporter":
			s.version = word(output(nil, exporter, "--version"), `version (\S+)`)
		case "telegraf":
			s.version = word(output(nil, telegraf, "--version"), `Telegraf (\S+)`)
		case "collectd":
			s.version = word(output(libraries, collectd, "-h"), `collectd (\d\S*),`)
		case "netdata":
			s.version = word(output(libraries, netdata, "-v"), `netdata v(\S+)`)
		case "etsy statsd":
			manifest, _ := os.ReadFile(filepath.Join(filepath.Dir(etsy), "package.json"))
			s.version = word(string(manifest), `"version": "([^"]+)"`) + ", Node " + word(output(nil, node, "-v"), `v(\S+)`)
		}
		found = append(found, s)
	}
	return found
}

// binary returns the path of a program in the folder of peers or in PATH; "" if there
// is none.
func (at places) binary(path string) string {
	if file, err := filepath.Abs(filepath.Join(at.peers, path)); err == nil && isFile(file) {
		return file
	}
	file, _ := exec.LookPath(filepath.Base(path))
	return file
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// word returns the first group of a pattern.
func word(text, pattern string) string {
	if found := regexp.MustCompile(`(?m)` + pattern).FindStringSubmatch(text); found != nil {
		return found[1]
	}
	return "of unknown version"
}

// instance is a server that runs.
type instance struct {
	*server
	*process
	sockets   *sockets
	folder    string
	port      int
	adminPort int

	sendingPort int  // where traffic comes from
	sent        sent // since it started
	scraping    chan struct{}

	longestScrape atomic.Int64 // nanoseconds
}

// settings is what configurations may refer to.
type settings struct {
	Dir, Root, Points, User string
	Port, AdminPort         int
	MaxContexts             int
}

// start runs a server with its configuration in a folder of its own, and waits until
// its socket is there. If points are kept, Weir writes them to a file.
func (b *bench) start(s *server, contexts int, keepPoints bool) (i *instance, err error) {
	folder, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return nil, err
	}
	i = &instance{server: s, folder: folder}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", s.name, err)
			i.stop()
			i.remove()
		}
	}()
	if i.port, err = freePort("udp"); err != nil {
		return nil, err
	}
	if i.sendingPort, err = freePort("udp"); err != nil {
		return nil, err
	}
	if i.adminPort, err = freePort("tcp"); err != nil {
		return nil, err
	}
	values := settings{
		Dir: folder, Root: s.root, Port: i.port, AdminPort: i.adminPort, User: "root",
		MaxContexts: max(1_000_000, 2*contexts), Points: os.DevNull,
	}
	if name := os.Getenv("USER"); name != "" {
		values.User = name
	}
	if keepPoints {
		values.Points = filepath.Join(folder, "points.json")
	}
	if err = s.configure(values); err != nil {
		return nil, err
	}
	command := make([]string, len(s.command))
	for n, argument := range s.command {
		if command[n], err = expand(argument, values); err != nil {
			return nil, err
		}
	}
	if i.process, err = start(command, s.env, folder, b.serverCPUs); err != nil {
		return nil, err
	}
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if err = i.running(); err != nil {
			return nil, err
		}
		if i.sockets, err = openSockets(i.pid(), i.port); err == nil {
			break
		}
		if time.Since(begin) > 15*time.Second {
			return nil, fmt.Errorf("%w\n%s", err, i.tail())
		}
	}
	if s.scrape != "" {
		i.scraping = make(chan struct{})
		go i.scrapeOften()
	}
	return i, nil
}

// configure writes the configuration files of a server.
func (s *server) configure(values settings) error {
	folder := "peers/" + strings.TrimSuffix(s.name, " statsd")
	files, err := fs.ReadDir(configurations, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has only flags
	}
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := configurations.ReadFile(folder + "/" + file.Name())
		if err != nil {
			return err
		}
		expanded, err := expand(string(text), values)
		if err != nil {
			return fmt.Errorf("%s: %w", file.Name(), err)
		}
		if err := os.WriteFile(filepath.Join(values.Dir, file.Name()), []byte(expanded), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func expand(text string, values settings) (string, error) {
	t, err := template.New("").Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, values)
	return b.String(), err
}

// freePort returns a port of 127.0.0.1 that nobody has.
func freePort(network string) (int, error) {
	var address net.Addr
	if network == "udp" {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		address = conn.LocalAddr()
	} else {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		defer l.Close()
		address = l.Addr()
	}
	_, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// stop ends a server; its folder stays until remove.
func (i *instance) stop() {
	if i.scraping != nil {
		close(i.scraping)
		i.scraping = nil
	}
	if i.sockets != nil {
		i.sockets.close()
		i.sockets = nil
	}
	if i.process != nil {
		i.process.stop(30 * time.Second)
		i.process = nil
	}
}

func (i *instance) remove() { _ = os.RemoveAll(i.folder) }

// scrapeOften reads a server's metrics as Prometheus would.
func (i *instance) scrapeOften() {
	stop := i.scraping
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		begin := time.Now()
		if answer, err := i.get(); err == nil {
			drainOf(answer)
			i.longestScrape.Store(max(i.longestScrape.Load(), int64(time.Since(begin))))
		}
	}
}

func (i *instance) get() (io.ReadCloser, error) {
	answer, err := http.Get("http://127.0.0.1:" + strconv.Itoa(i.adminPort) + i.scrape)
	if err != nil {
		return nil, err
	}
	return answer.Body, nil
}

// dropped returns the datagrams that the kernel or the server itself has dropped.
func (i *instance) dropped() uint64 {
	_, drops := i.sockets.state()
	if i.lost != nil {
		drops += i.lost(i)
	}
	return drops
}
