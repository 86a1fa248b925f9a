package analytics

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// store is the file that keeps counts: a record for each rule and day. One process has
// it open.
//
// bbolt panics on damage, and reading a file that was cut short is a fault of memory;
// so everything that touches the file goes through guard, which makes errors of both.
type store struct {
	path string
	log  *slog.Logger
	db   *bbolt.DB
	// records is how many there are, as of the last transaction.
	records int
	packer
}

const (
	storeName   = "counts.db"
	lockTimeout = time.Second
	idBytes     = 16
)

var (
	countsBucket = []byte("counts")
	metaBucket   = []byte("meta")
)

// errFileDamaged says that the file as a whole cannot be used.
var errFileDamaged = errors.New("the file is damaged")

// openStore opens the file in folder, makes it if it is not there, and calls visit for
// each record, which is borrowed. What is damaged is set aside and said in the log: the
// whole file, after which forget is called, or single records, of which damaged is the
// number.
func openStore(folder string, log *slog.Logger, visit func(*record) error, forget func()) (s *store, damaged int, err error) {
	s = &store{path: filepath.Join(folder, storeName), log: log, packer: *newPacker()}
	for try := 0; ; try++ {
		damaged, err = s.open(visit)
		if err == nil {
			return s, damaged, nil
		}
		if errors.Is(err, bolterrors.ErrTimeout) {
			return nil, 0, fmt.Errorf("open %s: another agent has it open; give each agent its own state_dir", s.path)
		}
		if try > 0 || ofTheMachine(err) {
			return nil, 0, fmt.Errorf("open %s: %w", s.path, err)
		}
		if err := s.setAside(err); err != nil {
			return nil, 0, err
		}
		forget()
	}
}

// ofTheMachine reports whether an error says nothing about what is in the file: no
// permission, no room, no memory, too many files. A file that cannot be read is damaged.
func ofTheMachine(err error) bool {
	var number syscall.Errno
	return errors.As(err, &number) && number != syscall.EIO
}

func (s *store) open(visit func(*record) error) (damaged int, err error) {
	err = guard(func() error {
		db, err := bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			return err
		}
		s.db = db
		return db.Update(func(tx *bbolt.Tx) error {
			if _, err := tx.CreateBucketIfNotExists(metaBucket); err != nil {
				return err
			}
			bucket, err := tx.CreateBucketIfNotExists(countsBucket)
			if err != nil {
				return err
			}
			var bad [][]byte
			count := 0
			cursor := bucket.Cursor()
			for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
				count++
				r, err := readRecord(v)
				if err == nil && !bytes.Equal(k, recordKey(r.rule, r.keyID, r.day)) {
					err = errDamaged
				}
				if err == nil {
					err = visit(r)
				}
				if err != nil {
					s.log.Error("a count was damaged, and is lost", "file", s.path, "record", fmt.Sprintf("%x", k), "error", err)
					bad = append(bad, bytes.Clone(k))
				}
			}
			for _, k := range bad {
				if err := bucket.Delete(k); err != nil {
					return err
				}
			}
			damaged, s.records = len(bad), count-len(bad)
			return nil
		})
	})
	return damaged, err
}

// setAside renames the file, so that it can be looked at and a new one be begun. It is
// not closed: a panic may have left its locks held.
func (s *store) setAside(why error) error {
	to := s.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
	s.db = nil
	if err := os.Rename(s.path, to); err != nil {
		return fmt.Errorf("set a damaged file aside: %w", err)
	}
	s.log.Error("the file of unique counts is damaged: it was set aside, and what it held is missing from the counts", "file", to, "error", why)
	return nil
}

// damage are the errors that bbolt returns for what it did not write.
var damage = []error{
	bolterrors.ErrInvalid, bolterrors.ErrChecksum, bolterrors.ErrVersionMismatch,
	bolterrors.ErrIncompatibleValue, bolterrors.ErrBucketNotFound,
}

// guard calls do and turns its panics, faults of memory and errors that mean damage
// into errFileDamaged.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errFileDamaged, p)
		}
		if slices.ContainsFunc(damage, func(known error) bool { return errors.Is(err, known) }) {
			err = fmt.Errorf("%w: %w", errFileDamaged, err)
		}
	}()
	return do()
}

// ruleKey names a rule's records. A sketch under another key is another sketch.
func ruleKey(rule, keyID string) [idBytes]byte {
	sum := sha256.Sum256([]byte(keyID + "\n" + rule))
	return [idBytes]byte(sum[:])
}

func recordKey(rule, keyID string, d day) []byte {
	id := ruleKey(rule, keyID)
	return binary.BigEndian.AppendUint32(id[:], uint32(d)^1<<31) // so that days sort
}

// put writes records and forgets those of rules and days that erase holds, all or
// nothing.
func (s *store) put(records, erase []*record) error {
	if len(records)+len(erase) == 0 {
		return nil
	}
	return guard(func() error {
		count := s.records
		err := s.db.Update(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket(countsBucket)
			for _, r := range records {
				key := recordKey(r.rule, r.keyID, r.day)
				if bucket.Get(key) == nil {
					count++
				}
				if err := bucket.Put(key, s.append(nil, r)); err != nil {
					return err
				}
			}
			for _, r := range erase {
				key := recordKey(r.rule, r.keyID, r.day)
				if bucket.Get(key) != nil {
					count--
				}
				if err := bucket.Delete(key); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			s.records = count
		}
		return err
	})
}

// recordsOf calls visit with each record of a rule, which is borrowed.
func (s *store) recordsOf(id [idBytes]byte, visit func(*record) error) error {
	return guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			var faults []error
			cursor := tx.Bucket(countsBucket).Cursor()
			for k, v := cursor.Seek(id[:]); bytes.HasPrefix(k, id[:]); k, v = cursor.Next() {
				r, err := readRecord(v)
				if err == nil {
					err = visit(r)
				}
				faults = append(faults, err)
			}
			return errors.Join(faults...)
		})
	})
}

// sketch returns the encoded sketch of a rule and day, nil if there is none.
func (s *store) sketch(rule, keyID string, d day) (blob []byte, err error) {
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			data := tx.Bucket(countsBucket).Get(recordKey(rule, keyID, d))
			if data == nil {
				return nil
			}
			r, err := readRecord(data)
			if err == nil {
				err = s.unpack(r)
				blob = r.sketch
			}
			return err
		})
	})
	return blob, err
}

// meta returns what is kept under a name, "" if nothing is.
func (s *store) meta(name string) (value string, err error) {
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			value = string(tx.Bucket(metaBucket).Get([]byte(name)))
			return nil
		})
	})
	return value, err
}

// setMeta keeps values under their names; "" forgets one.
func (s *store) setMeta(values map[string]string) error {
	if len(values) == 0 {
		return nil
	}
	return guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket(metaBucket)
			for name, value := range values {
				var err error
				if value == "" {
					err = bucket.Delete([]byte(name))
				} else {
					err = bucket.Put([]byte(name), []byte(value))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// names returns the names that begin with prefix.
func (s *store) names(prefix string) (names []string, err error) {
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			cursor := tx.Bucket(metaBucket).Cursor()
			for k, _ := cursor.Seek([]byte(prefix)); bytes.HasPrefix(k, []byte(prefix)); k, _ = cursor.Next() {
				names = append(names, string(k))
			}
			return nil
		})
	})
	return names, err
}

func (s *store) close() error {
	if s.db == nil {
		return nil
	}
	return guard(s.db.Close)
}
