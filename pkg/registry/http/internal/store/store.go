// Package store keeps the registrations of a registry server in a file, so that they outlast the server.
//
// # What is promised
//
// When Put or Remove has returned nil, the change is on disk: a server that is killed, or whose machine loses its power, has it
// when it starts again. Callers that come while a transaction is under way share the next one: so many writers cost two
// flushes of the disk for each 64 of them, not two each.
//
// Where the disk is full, Put gives a [FullError] and the file is as it was; the store tries again by itself, and takes writes as soon as
// there is room. Where the disk fails, in a write or in a flush, nothing is known of what it has kept: the store takes no write any more, and
// says so by Failed.
//
// # The file
//
// It is a bbolt file, locked while it is open. Of each record there is a checksum, and of all of them a number and a sum, which are
// written in the transaction that changes them. Open reads the whole file before bbolt does: a file that is not a registry's, that lacks
// a part, or in which a bit has changed, is refused with a *[DamageError], and never opened with fewer records than it had. [Salvage] takes what
// can still be read of such a file.
package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// FileName is the file's name in its folder.
const FileName = "registry.db"

const (
	lockTime  = 2 * time.Second        // for another server to let go of the file
	retryTime = 200 * time.Millisecond // between two tries while the disk is full
	lateTime  = 500 * time.Millisecond // at most until a Forget is written
	maxBatch  = 64                     // changes in a transaction: who waited for it goes on at once, and is in everybody's way
	runBits   = 36                     // changes that one run of a server can count
)

// Record is a node with its lease.
type Record struct {
	ID    string
	Owner [32]byte      // tells who may change it
	TTL   time.Duration // of its lease
	Node  []byte        // what is kept of the node
}

// Options of Open.
type Options struct {
	// Dir is the folder of the file. It is made, for this user alone, where it is not there.
	Dir string
	// Logger is told when the disk is full, and when no longer. Nil: nobody is.
	Logger *slog.Logger
	// OpenFile opens the file; nil is os.OpenFile.
	OpenFile func(name string, flag int, mode os.FileMode) (*os.File, error)
}

// FullError is the error of a write for which the disk has no room.
type FullError struct{ Err error }

func (e *FullError) Error() string { return "registry: the server's disk is full: " + e.Err.Error() }

// Unwrap gives the system's error.
func (e *FullError) Unwrap() error { return e.Err }

// FailedError is the error of all writes after one that failed so that nobody knows what is on the disk.
type FailedError struct{ Err error }

func (e *FailedError) Error() string { return "registry: the server's disk failed: " + e.Err.Error() }

// Unwrap gives the system's error.
func (e *FailedError) Unwrap() error { return e.Err }

// ErrLocked: another server has the file open.
var ErrLocked = errors.New("another registry server has it open")

// Store is an open file. Its methods may be called concurrently.
type Store struct {
	db     *bolt.DB
	path   string
	epoch  string
	first  uint64 // revision
	fresh  bool
	logger *slog.Logger

	wake   chan struct{} // of one element: there is something to write
	end    chan struct{} // closed by Close
	ended  chan struct{} // the writer has returned
	failed chan struct{} // closed when the disk failed
	once   sync.Once

	mu      sync.Mutex
	waiting []*job
	forget  map[string]struct{} // to be removed with the next transaction, or soon
	full    error               // a *FullError: the last transaction found no room
	tried   time.Time           // when that was
	broken  error               // a *FailedError
	closed  bool

	sum     sum // of the file; the writer's
	commits uint64
}

// job is a change that somebody waits for.
type job struct {
	put  *Record
	gone []string
	done chan error
}

// Open opens the file in a folder, and makes one where there is none. It gives the records that are in it.
func Open(o Options) (*Store, []Record, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("registry: folder for data: %w", err)
	}
	path := filepath.Join(o.Dir, FileName)
	fresh, err := prepare(path)
	if err != nil {
		return nil, nil, err
	}
	db, err := open(path, o.OpenFile)
	if err != nil {
		return nil, nil, err
	}
	s := &Store{db: db, path: path, fresh: fresh, logger: o.Logger, wake: make(chan struct{}, 1), end: make(chan struct{}),
		ended: make(chan struct{}), failed: make(chan struct{}), forget: map[string]struct{}{}}
	records, err := s.begin()
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	go s.write()
	return s, records, nil
}

// prepare makes the file where there is none, and reads it through where there is one.
func prepare(path string) (fresh bool, err error) {
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return true, create(path, nil)
	case err != nil:
		return false, fmt.Errorf("registry: %w", err)
	}
	// Its reader's lock keeps a writer out while the file is read.
	db, err := bolt.Open(path, 0, &bolt.Options{Timeout: lockTime, ReadOnly: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return false, fmt.Errorf("registry: %s: %w", path, ErrLocked)
	}
	if err == nil {
		defer db.Close()
	} else {
		err = fmt.Errorf("registry: open %s: %w", path, err)
	}
	if _, damage := readFile(path); damage != nil { // it tells more
		err = damage
	}
	return false, err
}

// create makes a file that holds records. It has its name only when it is whole and on disk.
func create(path string, records []Record) error {
	part := path + ".new"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("registry: %w", err)
	}
	db, err := bolt.Open(part, 0o600, &bolt.Options{Timeout: lockTime, NoFreelistSync: true})
	if err != nil {
		return fmt.Errorf("registry: make %s: %w", part, err)
	}
	err = db.Update(func(tx *bolt.Tx) error { return fill(tx, records) })
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("registry: make %s: %w", part, err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// fill writes what a new file holds.
func fill(tx *bolt.Tx, records []Record) error {
	nodes, err := tx.CreateBucket(nodesBucket)
	if err != nil {
		return err
	}
	about, err := tx.CreateBucket(aboutBucket)
	if err != nil {
		return err
	}
	var total sum
	for _, r := range records {
		value := encode(r)
		total.add([]byte(r.ID), value)
		if err := nodes.Put([]byte(r.ID), value); err != nil {
			return err
		}
	}
	epoch := make([]byte, epochBytes)
	_, _ = rand.Read(epoch) // it gives no error, and ends the program where there is no randomness
	return errors.Join(about.Put(formatKey, []byte(format)), about.Put(epochKey, seal(epochKey, epoch)),
		about.Put(sumKey, total.encode()), about.Put(runKey, seal(runKey, make([]byte, runBytes))))
}

func open(path string, openFile func(string, int, os.FileMode) (*os.File, error)) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: lockTime, NoFreelistSync: true, FreelistType: bolt.FreelistMapType, NoStatistics: true, OpenFile: openFile,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("registry: %s: %w", path, ErrLocked)
	case err != nil:
		return nil, fmt.Errorf("registry: open %s: %w", path, err)
	}
	return db, nil
}

// begin reads the records, and notes that a run begins.
func (s *Store) begin() (records []Record, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		about := tx.Bucket(aboutBucket)
		err := tx.Bucket(nodesBucket).ForEach(func(key, value []byte) error {
			r, err := decode(key, value)
			if err != nil {
				return &DamageError{Path: s.path, What: fmt.Sprintf("the record of %.100q: %s", key, err)}
			}
			s.sum.add(key, value)
			records = append(records, r)
			return nil
		})
		if err != nil {
			return err
		}
		if want, err := decodeSum(about.Get(sumKey)); err != nil || want != s.sum {
			return &DamageError{Path: s.path, What: fmt.Sprintf("it has %d records, and should have %d", s.sum.count, want.count)}
		}
		epoch, errEpoch := unseal(epochKey, about.Get(epochKey), epochBytes)
		run, errRun := unseal(runKey, about.Get(runKey), runBytes)
		if err := errors.Join(errEpoch, errRun); err != nil {
			return &DamageError{Path: s.path, What: err.Error()}
		}
		s.epoch, s.first = hex.EncodeToString(epoch), (binary.BigEndian.Uint64(run)+1)<<runBits
		return nil
	})
	if err != nil {
		return nil, s.explain(err)
	}
	return records, s.noteRun()
}

// noteRun writes that one more run has begun. Where there is no room for that, the store serves what it has, and counts from a random
// number: the next run may begin with the same one.
func (s *Store) noteRun() error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(aboutBucket).Put(runKey, seal(runKey, binary.BigEndian.AppendUint64(nil, s.first>>runBits)))
	})
	if err == nil {
		return nil
	}
	err = s.explain(err)
	if full := (*FullError)(nil); !errors.As(err, &full) {
		return err
	}
	s.first += mathrand.Uint64N(1 << (runBits - 1))
	s.full, s.tried = err, time.Now()
	s.logger.Error("registry server's disk is full: it takes no new registrations", "file", s.path, "error", err)
	return nil
}

// Path is where the file is.
func (s *Store) Path() string { return s.path }

// Epoch names the file's life: 32 hexadecimal digits that a new file has others of.
func (s *Store) Epoch() string { return s.epoch }

// Fresh reports whether Open made the file.
func (s *Store) Fresh() bool { return s.fresh }

// FirstRevision is a number above all that a run before this one can have counted to.
func (s *Store) FirstRevision() uint64 { return s.first }

// Full gives the error of writes for which the disk has no room now; nil where it has.
func (s *Store) Full() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// Failed is closed when the disk failed; Err says why then.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err gives the *FailedError of a disk that failed, else nil.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// Commits is how many transactions were written since Open.
func (s *Store) Commits() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// Size is the file's size in bytes, as far as it is known.
func (s *Store) Size() int64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Close writes what is still to be written, and closes the file.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.end)
		<-s.ended
		err = s.db.Close()
	})
	return err
}
