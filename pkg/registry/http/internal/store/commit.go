package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Put writes r, in the place of the record with its id, and returns when it is on disk. The error is a *FullError or a
// *FailedError, or registry.ErrClosed.
func (s *Store) Put(r Record) error { return s.wait(&job{put: &r}) }

// Remove takes records away, and returns when that is on disk; where the disk is full, it does as Forget does.
func (s *Store) Remove(ids ...string) error {
	err := s.wait(&job{gone: ids})
	var full *FullError
	if errors.As(err, &full) {
		s.Forget(ids...)
		return nil
	}
	return err
}

// Forget takes records away soon, and does not wait. Of what is put and forgotten the last one counts.
func (s *Store) Forget(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.broken != nil {
		return
	}
	// What waits was put before: the order among jobs and what is forgotten is that of their coming.
	if len(s.waiting) > 0 {
		s.waiting = append(s.waiting, &job{gone: ids})
		return
	}
	for _, id := range ids {
		s.forget[id] = struct{}{}
	}
}

func (s *Store) wait(j *job) error {
	j.done = make(chan error, 1)
	if err := s.enter(j); err != nil {
		return err
	}
	s.signal()
	return <-j.done
}

func (s *Store) enter(j *job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return registry.ErrClosed
	case s.broken != nil:
		return s.broken
	case s.full != nil && time.Since(s.tried) < retryTime:
		return s.full
	}
	s.waiting = append(s.waiting, j)
	return nil
}

// write is the goroutine that writes: what waits, in one transaction.
func (s *Store) write() {
	defer close(s.ended)
	tick := time.NewTicker(lateTime)
	defer tick.Stop()
	for {
		select {
		case <-s.end:
			for s.round(true) {
			}
			return
		case <-s.wake:
			s.round(false)
		case <-tick.C:
			s.round(true)
		}
	}
}

// round writes a batch. late: also if nobody waits for it. It reports whether there is more, which it has the writer look at.
func (s *Store) round(late bool) (more bool) {
	s.mu.Lock()
	batch := s.waiting[:min(len(s.waiting), maxBatch)]
	if s.waiting = s.waiting[len(batch):]; len(s.waiting) > 0 {
		more = true
		s.signal()
	} else {
		s.waiting = nil
	}
	if len(batch) == 0 && (!late || len(s.forget) == 0 && s.full == nil) {
		s.mu.Unlock()
		return more
	}
	forget, err := s.forget, s.broken
	s.forget = map[string]struct{}{}
	s.mu.Unlock()
	if err == nil {
		err = s.commit(batch, forget)
	}
	s.mu.Lock()
	s.settle(err, batch, forget)
	s.mu.Unlock()
	for _, j := range batch {
		if j.done != nil {
			j.done <- err
		}
	}
	return more
}

// signal has the writer look for what waits.
func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// settle notes what became of a transaction. It is called with the lock held.
func (s *Store) settle(err error, batch []*job, forgotten map[string]struct{}) {
	was := s.full
	s.full = nil
	var full *FullError
	switch {
	case err == nil:
		s.commits++
		if was != nil {
			s.logger.Info("registry server's disk has room again", "file", s.path)
		}
	case errors.As(err, &full):
		s.full, s.tried = err, time.Now()
		maps.Copy(s.forget, forgotten)
		for _, j := range batch {
			if j.done == nil { // a Forget that came while others waited
				for _, id := range j.gone {
					s.forget[id] = struct{}{}
				}
			}
		}
		if was == nil {
			s.logger.Error("registry server's disk is full: it takes no new registrations", "file", s.path, "error", full.Err)
		}
	case s.broken == nil:
		s.broken = err
		close(s.failed)
	}
}

// commit writes one transaction.
func (s *Store) commit(batch []*job, forget map[string]struct{}) error {
	total := s.sum
	err := s.db.Update(func(tx *bolt.Tx) error {
		nodes := tx.Bucket(nodesBucket)
		for id := range forget {
			if err := drop(nodes, &total, id); err != nil {
				return err
			}
		}
		for _, j := range batch {
			for _, id := range j.gone {
				if err := drop(nodes, &total, id); err != nil {
					return err
				}
			}
			if j.put == nil {
				continue
			}
			if err := drop(nodes, &total, j.put.ID); err != nil {
				return err
			}
			key, value := []byte(j.put.ID), encode(*j.put)
			total.add(key, value)
			if err := nodes.Put(key, value); err != nil {
				return err
			}
		}
		return tx.Bucket(aboutBucket).Put(sumKey, total.encode())
	})
	if err != nil {
		return s.explain(err)
	}
	s.sum = total
	return nil
}

func drop(nodes *bolt.Bucket, total *sum, id string) error {
	key := []byte(id)
	old := nodes.Get(key)
	if old == nil {
		return nil
	}
	total.remove(key, old)
	return nodes.Delete(key)
}

// explain tells a disk without room, where the transaction came to nothing, from all else.
func (s *Store) explain(err error) error {
	var damage *DamageError
	if errors.As(err, &damage) {
		return err
	}
	// A write for which there is no room changes nothing. Of a flush that fails nobody knows what it has written, whatever it says.
	var write *fs.PathError
	if errors.As(err, &write) && write.Op != "sync" && noRoom(err) {
		return &FullError{Err: err}
	}
	if strings.HasPrefix(err.Error(), "file resize error") { // bbolt's, which has no cause
		return &FullError{Err: err}
	}
	return &FailedError{Err: fmt.Errorf("%s: %w", s.path, err)}
}

func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
