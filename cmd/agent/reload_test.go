package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

// startConfigured runs the binary with a configuration file.
func startConfigured(t *testing.T, binary, file string, settings ...string) *process {
	t.Helper()
	return startWith(t, binary, func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, "--config", file) }, settings...)
}

// replace puts a new file in the place of another, as editors do.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func (p *process) hangUp(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// logged waits until a text is in the log so many times.
func (p *process) logged(t *testing.T, text string, times int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q is in the log %d times", text, times), func() bool { return strings.Count(p.log(), text) >= times })
}

const (
	inForce   = "is in force"
	noChange  = "nothing in it has changed"
	notUsable = "cannot be used: nothing has changed"
)

func TestHangupWithoutAFile(t *testing.T) {
	intake := testkit.NewIntake(t)
	p := start(t, build(t), toIntake(intake)...)
	p.hangUp(t)
	p.logged(t, noChange, 1)
	sendLines(t, p.address, "a:1|c")
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	totals := newTotals(intake)
	if totals.counts["a"] == 0 || !near(totals.counts["weir.config.reloads result:unchanged"], 1) {
		t.Errorf("%v", totals.counts)
	}
}

// While clients send, a hundred reloads between two configurations lose nothing and
// count nothing twice: neither a sample, nor a datagram, nor a point.
func TestReloadsUnderLoad(t *testing.T) {
	for name, flags := range map[string][]string{"plain": nil, "race": {"-race"}} {
		t.Run(name, func(t *testing.T) { reloadUnderLoad(t, build(t, flags...)) })
	}
}

func reloadUnderLoad(t *testing.T, binary string) {
	intake := testkit.NewIntake(t)
	lines := filepath.Join(t.TempDir(), "lines")
	file := filepath.Join(t.TempDir(), "weir.yaml")
	configs := []string{
		"tags: [env:a]\nforwarders: [{type: datadog}]\n",
		"tags: [env:b]\nexpiry: {context: 2m}\nrules: [{match: '*', drop_tags: [sender]}]\nforwarders: [{type: datadog, include: ['*']}, {type: logs, output: " + lines + "}]\n",
	}
	replace(t, file, configs[0])
	socket := filepath.Join(t.TempDir(), "s") // whose senders wait, where those of UDP would lose
	p := startConfigured(t, binary, file, append(toIntake(intake), "WEIR_LISTEN_UNIX_DATAGRAM="+socket)...)
	const senders, reloads, names = 3, 100, 20
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sent := make([][names]int, senders)
	for i := range senders {
		sending.Go(func() {
			conn, err := net.Dial("unixgram", socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := fmt.Fprintf(conn, "load.%d:1|c|#sender:%d\nload.%d:2|c|#sender:%d", n%names, i, n*7%names, i); err != nil {
					t.Error(err)
					return
				}
				sent[i][n%names]++
				sent[i][n*7%names] += 2
				if n%20 == 19 {
					time.Sleep(2 * time.Millisecond)
				}
			}
		})
	}
	for i := range reloads {
		replace(t, file, configs[(i+1)%2])
		p.hangUp(t)
		p.logged(t, inForce, i+1)
	}
	close(stop)
	sending.Wait()
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	got, envs := map[string]float64{}, map[string]bool{}
	totals := newTotals(intake)
	for key, n := range totals.counts {
		name, tags, _ := strings.Cut(key, " ")
		got[name] += n
		if strings.HasPrefix(name, "load.") {
			envs[tags] = true
		}
	}
	for n := range names {
		want := 0
		for i := range senders {
			want += sent[i][n]
		}
		if name := fmt.Sprintf("load.%d", n); !near(got[name], float64(want)) {
			t.Errorf("%s: %v, want %d", name, got[name], want)
		}
	}
	if len(envs) != 1+senders {
		t.Errorf("tags %v, want env:b, and env:a with each sender", envs)
	}
	if strings.Contains(p.log(), "DATA RACE") {
		t.Error("the race detector found a race")
	}
	checkNoPointTwice(t, intake)
}

// What cannot be used changes nothing, whatever is wrong with it, and is told once: in
// the log with all faults, and by a metric. As soon as it can be used again, it is.
func TestConfigurationsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	good := "tags: [version:%d]\n"
	for name, test := range map[string]struct {
		harm   func(t *testing.T, file string)
		faults []string
	}{
		"broken": {
			func(t *testing.T, file string) {
				replace(t, file, "tagz: [a]\nflush_interval: 1\nforwarders:\n  - {type: datadogg}\n")
			},
			[]string{":1: tagz: there is no such key", ":2: flush_interval: ", ":4: forwarders[0].type: there is no forwarder"},
		},
		"removed": {
			func(t *testing.T, file string) {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"no such file"},
		},
		"unreadable": {
			func(t *testing.T, file string) {
				if err := os.Chmod(file, 0); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"permission denied"},
		},
		"a folder": {
			func(t *testing.T, file string) {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(file, 0o755); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"is a directory"},
		},
		"empty": {
			func(t *testing.T, file string) {
				if err := os.Truncate(file, 0); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"the configuration is empty"},
		},
		"not to be opened": {
			func(t *testing.T, file string) {
				replace(t, file, "forwarders: [{type: logs, output: /no/such/folder/lines}]\n")
			},
			[]string{"open forwarder logs", "no such file"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			intake := testkit.NewIntake(t)
			folder, state := t.TempDir(), t.TempDir()
			file := filepath.Join(folder, "weir.yaml")
			replace(t, file, fmt.Sprintf(good, 1))
			change := func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, "--config", file) }
			if name == "unreadable" && os.Getuid() == 0 {
				change = func(cmd *exec.Cmd) { // root may read everything
					cmd.Args = append(cmd.Args, "--config", file)
					const nobody = 65534
					cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
					own(t, nobody, folder, file, state)
					reach(t, build(t))
				}
			}
			binary := build(t)
			p := startWith(t, binary, change, append(toIntake(intake), "WEIR_STATE_DIR="+state)...)
			test.harm(t, file)
			p.logged(t, notUsable, 1)
			for _, want := range test.faults {
				eventually(t, "the log says "+want, func() bool { return strings.Contains(p.log(), want) })
			}
			eventually(t, "the metric says so", func() bool { return newTotals(intake).gauges["weir.config.stale version:1"] == 1 })
			sendLines(t, p.address, "a:1|c")
			eventually(t, "what was in force is so still", func() bool { return newTotals(intake).counts["a version:1"] == 1 })

			if info, err := os.Stat(file); err == nil && info.IsDir() {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			replace(t, file, fmt.Sprintf(good, 2))
			if name == "unreadable" && os.Getuid() == 0 {
				own(t, 65534, file)
			}
			p.logged(t, inForce, 1)
			sendLines(t, p.address, "a:1|c")
			eventually(t, "the new one counts", func() bool {
				totals := newTotals(intake)
				stale, known := totals.gauges["weir.config.stale version:2"]
				return totals.counts["a version:2"] == 1 && known && stale == 0
			})
			again := name == "unreadable" || name == "a folder" // for a moment there is no file
			if n := strings.Count(p.log(), notUsable); n != 1 && !again {
				t.Errorf("it was told %d times", n)
			}
			_ = p.stop(t)
		})
	}
}

func own(t *testing.T, uid int, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
		reach(t, path)
	}
}

// reach lets everybody reach a path: the folders of tests are for their user only.
func reach(t *testing.T, path string) {
	t.Helper()
	for ; path != "/"; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode&0o011 != 0o011 && info.IsDir() {
			if err := os.Chmod(path, mode|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Kubernetes swaps the folder behind a link: neither the file nor its link changes.
func TestConfigMapIsSwapped(t *testing.T) {
	folder := t.TempDir()
	version := func(n int, text string) {
		data := fmt.Sprintf("..2026_%d", n)
		if err := os.Mkdir(filepath.Join(folder, data), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, data, "weir.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		next := filepath.Join(folder, "..data_tmp")
		if err := os.Symlink(data, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(folder, "..data")); err != nil {
			t.Fatal(err)
		}
		_ = os.RemoveAll(filepath.Join(folder, fmt.Sprintf("..2026_%d", n-1)))
	}
	version(1, "log: {level: info}\n")
	file := filepath.Join(folder, "weir.yaml")
	if err := os.Symlink("..data/weir.yaml", file); err != nil {
		t.Fatal(err)
	}
	p := startConfigured(t, build(t), file)
	for n := 2; n <= 4; n++ {
		version(n, fmt.Sprintf("tags: ['version:%d']\n", n))
		p.logged(t, inForce, n-1)
	}
	if strings.Contains(p.log(), notUsable) {
		t.Error("there was something wrong on the way")
	}
	_ = p.stop(t)
}

// A link to a file elsewhere, a file that is written in place, and a folder that is put in
// the place of another: each is noticed.
func TestWaysToChangeAFile(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "real.yaml")
	folder := filepath.Join(t.TempDir(), "etc")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(elsewhere, "tags: [a]\n")
	file := filepath.Join(folder, "weir.yaml")
	if err := os.Symlink(elsewhere, file); err != nil {
		t.Fatal(err)
	}
	p := startConfigured(t, build(t), file)
	write(elsewhere, "tags: [b]\n")
	p.logged(t, inForce, 1)
	replace(t, elsewhere, "tags: [c]\n")
	p.logged(t, inForce, 2)
	replace(t, file, "tags: [d]\n") // no link any more
	p.logged(t, inForce, 3)
	if err := os.Rename(folder, folder+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	write(file, "tags: [e]\n")
	p.logged(t, inForce, 4)
	_ = p.stop(t)
}

// Of many writes in a row the last one counts, and not each is a reload.
func TestFiftyQuickWrites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "weir.yaml")
	replace(t, file, "log: {level: info}\n")
	p := startConfigured(t, build(t), file, "WEIR_FLUSH_INTERVAL=1s")
	const writes = 50
	for i := 1; i <= writes; i++ {
		if err := os.WriteFile(file, fmt.Appendf(nil, "tags: ['version:%d']\n", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the last one is in force", func() bool {
		sendLines(t, p.address, "a:1|c")
		return strings.Contains(p.output(), fmt.Sprintf(`"tags":["version:%d"]`, writes))
	})
	if n := strings.Count(p.log(), inForce); n > 10 {
		t.Errorf("%d reloads for %d writes", n, writes)
	}
	_ = p.stop(t)
}

// The level of the log changes at once; what needs a restart is named, and stays as it
// was until it is as it was in the file, too.
func TestWhatChangesAndWhatDoesNot(t *testing.T) {
	intake := testkit.NewIntake(t)
	file := filepath.Join(t.TempDir(), "weir.yaml")
	replace(t, file, "{}\n")
	p := startConfigured(t, build(t), file, toIntake(intake)...)
	replace(t, file, "log: {level: debug, format: json}\nlisten: {max_packet: 9KiB, tcp: '127.0.0.1:0'}\ndialect: statsd\n")
	p.logged(t, inForce, 1)
	for _, key := range []string{"listen.max_packet", "listen.tcp", "dialect", "log.format"} {
		if !strings.Contains(p.log(), key+" changed: needs a restart") {
			t.Errorf("the log does not name %s", key)
		}
	}
	sendLines(t, p.address, "nonsense")
	p.logged(t, "rejected a line", 1)
	eventually(t, "the metric says how much", func() bool { return newTotals(intake).gauges["weir.config.restart_needed"] == 4 })
	replace(t, file, "log: {level: error}\n")
	eventually(t, "nothing needs a restart", func() bool {
		n, known := newTotals(intake).gauges["weir.config.restart_needed"]
		return known && n == 0
	})
	p.hangUp(t)
	_ = p.stop(t)
	if strings.Contains(p.log(), "the final account") {
		t.Error("at level error, the log has an account")
	}
}

// A limit that a reload lowers folds what is beyond it from then on, and all samples
// count; raised again, it lets new contexts in.
func TestLimitsChange(t *testing.T) {
	intake := testkit.NewIntake(t)
	file := filepath.Join(t.TempDir(), "weir.yaml")
	replace(t, file, "{}\n")
	p := startConfigured(t, build(t), file, toIntake(intake)...)
	const each = 300
	sent := 0
	send := func(name string) {
		for i := range each {
			sendLines(t, p.address, fmt.Sprintf("u:1|c|#id:%s%d,env:prod", name, i))
			sent++
		}
		eventually(t, "all samples count", func() bool {
			sum := 0.0
			for key, n := range newTotals(intake).counts {
				if strings.HasPrefix(key, "u ") {
					sum += n
				}
			}
			return near(sum, float64(sent))
		})
	}
	series := func(prefix string) (n int) {
		for key := range newTotals(intake).counts {
			if strings.HasPrefix(key, "u env:prod id:"+prefix) {
				n++
			}
		}
		return n
	}
	send("a")
	replace(t, file, "cardinality: {max_contexts_per_metric: 100, keep_top: 5}\n")
	p.logged(t, inForce, 1)
	send("b")
	if a, b, other := series("a"), series("b"), series("_other_"); a != each || b > 5 || other != 1 {
		t.Errorf("%d series of before, %d of after, %d of others; want %d, at most 5, 1", a, b, other, each)
	}
	replace(t, file, "cardinality: {max_contexts_per_metric: 10000}\n")
	p.logged(t, inForce, 2)
	eventually(t, "the fold is lifted", func() bool {
		send("c")
		return series("c") == each
	})
	_ = p.stop(t)
}
