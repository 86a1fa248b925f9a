package raw

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func broker(t *testing.T) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "weir.events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A row that names nobody has the id of its event for a key: all of them under one, or
// none, would be one partition's.
func TestKafkaKeyOfNobody(t *testing.T) {
	cluster := broker(t)
	cfg := DefaultConfig()
	cfg.Format, cfg.Kafka.Brokers, cfg.Kafka.Key = FormatNone, cluster.ListenAddrs(), KeyIdentity
	s := testSink(t, cfg)
	put(s.NewQueue(), "team.created", "plan:pro,_id:abc", 1, 1795258450)
	end(t, s)
	reader, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("weir.events"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fetches := reader.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		t.Fatal(err)
	}
	if records := fetches.Records(); len(records) != 1 || string(records[0].Key) != "abc" {
		t.Errorf("records: %v", records)
	}
}

// Rows reach Kafka, keyed by who it was, so that one person's events stay in order.
func TestKafka(t *testing.T) {
	cluster := broker(t)
	for _, key := range keyKinds {
		cfg := DefaultConfig()
		cfg.Format, cfg.Kafka.Brokers, cfg.Kafka.Key = FormatNone, cluster.ListenAddrs(), key
		s := testSink(t, cfg)
		q := s.NewQueue()
		const rows = 300
		for i := range rows {
			put(q, "team.created", fmt.Sprintf("user_id:%d,plan:pro,_v:1-0-0,env:%s", i%10, key), 1, 1795258450)
		}
		end(t, s)
		if got := books(t, s); got["kafka.rows.delivered"] != rows || got["kafka.rows.queued"] != 0 {
			t.Errorf("%s: %v", key, got)
		}
		reader, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("weir.events"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		seen, partitions := 0, map[string]int32{}
		for seen < rows {
			fetches := reader.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				t.Fatal(err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				var row struct {
					EventID string            `json:"event_id"`
					Attrs   map[string]any    `json:"attrs"`
					Context map[string]string `json:"context"`
				}
				if err := json.Unmarshal(r.Value, &row); err != nil {
					t.Errorf("%v\n%s", err, r.Value)
				}
				if row.Context["env"] != key {
					return
				}
				seen++
				want := row.EventID
				if key == KeyIdentity {
					want, _ = row.Attrs["user_id"].(string)
					if before, known := partitions[want]; known && before != r.Partition {
						t.Errorf("%s is in partitions %d and %d", want, before, r.Partition)
					}
					partitions[want] = r.Partition
				}
				if string(r.Key) != want || want == "" {
					t.Errorf("key %s, want %s", r.Key, want)
				}
			})
		}
		cancel()
		reader.Close()
	}
}

// A Kafka that is not there costs the rows that do not fit into its buffer, which are
// counted, and nothing else.
func TestKafkaIsDown(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Kafka.Brokers, cfg.Kafka.MaxQueued, cfg.Dir = []string{"127.0.0.1:1"}, 1<<20, t.TempDir()
	cfg.Kafka.Timeout = time.Second
	s := testSink(t, cfg)
	q := s.NewQueue()
	const rows = 5000
	for i := range rows {
		put(q, "team.created", fmt.Sprintf("user_id:%d,plan:pro", i), 1, 1795258450)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := s.Run(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run: %v", err)
	}
	got := books(t, s)
	if got["kafka.rows"] != rows || got["kafka.rows.dropped reason:queue_full"] == 0 || got["kafka.rows.dropped reason:undelivered"] == 0 ||
		got["kafka.rows.dropped reason:queue_full"]+got["kafka.rows.dropped reason:undelivered"] != rows || got["kafka.rows.queued"] != 0 {
		t.Errorf("books: %v", got)
	}
	if n := len(rowsOf(t, cfg.Dir)); n != rows {
		t.Errorf("%d rows in files, want %d", n, rows)
	}
}

// Another client, kcat, finds every row.
func TestKcatReadsRows(t *testing.T) {
	kcat, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("kcat is not installed; .ci/run installs it (apt-get install kcat)")
	}
	cluster := broker(t)
	cfg := DefaultConfig()
	cfg.Format, cfg.Kafka.Brokers = FormatNone, cluster.ListenAddrs()
	s := testSink(t, cfg)
	q := s.NewQueue()
	const rows = 50
	for i := range rows {
		put(q, "team.created", fmt.Sprintf("user_id:%d,plan:pro", i), 1, 1795258450)
	}
	end(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, kcat, "-C", "-b", strings.Join(cluster.ListenAddrs(), ","), "-t", "weir.events", "-o", "beginning", "-e", "-q", "-f", `%k %s\n`).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != rows {
		t.Fatalf("%d rows, want %d:\n%s", len(lines), rows, out)
	}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, " ")
		if !json.Valid([]byte(value)) || !strings.Contains(value, `"user_id":"`+key+`"`) {
			t.Errorf("%s", line)
		}
	}
}
