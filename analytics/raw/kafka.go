package raw

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// kafka sends rows to a topic. Its producer is idempotent: a batch that is sent again
// is there once.
type kafka struct {
	cfg     KafkaConfig
	client  *kgo.Client
	stats   *kafkaStats
	log     *slog.Logger
	failing atomic.Bool
}

// kafkaStats is what becomes of rows on their way to Kafka.
type kafkaStats struct {
	rows      atomic.Uint64
	delivered atomic.Uint64
	queued    atomic.Int64
	dropped   [kafkaDropReasons]atomic.Uint64
}

type kafkaDropReason int

const (
	kafkaFull  kafkaDropReason = iota // max_queued bytes wait
	kafkaError                        // not delivered within the timeout, or refused
	kafkaDropReasons
)

var kafkaDropReasonNames = [kafkaDropReasons]string{"queue_full", "undelivered"}

const (
	// maxQueuedRecords bounds rows that wait for Kafka, besides their bytes.
	maxQueuedRecords = 100_000
	// flushAtEnd is for how long rows are still delivered once the agent stops.
	flushAtEnd = 5 * time.Second
)

// openKafka connects to nobody yet.
func openKafka(cfg KafkaConfig, stats *kafkaStats, log *slog.Logger) (*kafka, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.ClientID("weir"),
		kgo.DefaultProduceTopic(cfg.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), // idempotence is the default, and needs it
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerBatchCompression(kgo.ZstdCompression(), kgo.GzipCompression()),
		kgo.MaxBufferedRecords(maxQueuedRecords),
		kgo.MaxBufferedBytes(int(cfg.MaxQueued)),
		kgo.RecordDeliveryTimeout(cfg.Timeout),
		kgo.ProducerLinger(100 * time.Millisecond),
	}
	if cfg.TLS || cfg.CAFile != "" {
		settings := &tls.Config{MinVersion: tls.VersionTLS12}
		if cfg.CAFile != "" {
			pem, err := os.ReadFile(cfg.CAFile)
			if err != nil {
				return nil, fmt.Errorf("analytics.raw.kafka.ca_file: %w", err)
			}
			settings.RootCAs = x509.NewCertPool()
			if !settings.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("analytics.raw.kafka.ca_file: there is no certificate in %s; write it in PEM", cfg.CAFile)
			}
		}
		options = append(options, kgo.DialTLSConfig(settings))
	}
	switch cfg.SASL {
	case "plain":
		options = append(options, kgo.SASL(plain.Auth{User: cfg.User, Pass: cfg.Password.Reveal()}.AsMechanism()))
	case "scram-sha-256":
		options = append(options, kgo.SASL(scram.Auth{User: cfg.User, Pass: cfg.Password.Reveal()}.AsSha256Mechanism()))
	case "scram-sha-512":
		options = append(options, kgo.SASL(scram.Auth{User: cfg.User, Pass: cfg.Password.Reveal()}.AsSha512Mechanism()))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("analytics.raw.kafka: %w", err)
	}
	return &kafka{cfg: cfg, client: client, stats: stats, log: log}, nil
}

// add sends a row, if there is room for it to wait in: its text, which ends with a
// newline, who it was, and its id.
func (k *kafka) add(json, who, id []byte) {
	record := &kgo.Record{Value: slices.Clone(json[:len(json)-1])}
	if record.Key = slices.Clone(who); k.cfg.Key == KeyEventID || len(who) == 0 {
		record.Key = slices.Clone(id)
	}
	k.stats.rows.Add(1)
	k.stats.queued.Add(1)
	k.client.TryProduce(context.Background(), record, k.delivered)
}

// delivered is told what became of a row.
func (k *kafka) delivered(_ *kgo.Record, err error) {
	k.stats.queued.Add(-1)
	switch {
	case err == nil:
		k.stats.delivered.Add(1)
		if k.failing.Swap(false) {
			k.log.Info("raw events reach Kafka again")
		}
		return
	case errors.Is(err, kgo.ErrMaxBuffered):
		k.stats.dropped[kafkaFull].Add(1)
	default:
		k.stats.dropped[kafkaError].Add(1)
	}
	if !k.failing.Swap(true) {
		k.log.Error("raw events do not reach Kafka; rows are dropped until they do", "topic", k.cfg.Topic, "error", err)
	}
}

// close delivers what waits, for a while, and gives up the rest.
func (k *kafka) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), min(flushAtEnd, k.cfg.Timeout))
	defer cancel()
	err := k.client.Flush(ctx)
	k.client.Close()
	if err != nil {
		return fmt.Errorf("not all rows reached Kafka: %w", err)
	}
	return nil
}
