package http

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/status"
)

// The limits of series.
const (
	seriesName  = 12          // characters of a lane's part of a series' name: 60 random bits
	maxName     = 64          // characters that a name may have
	maxSeries   = 4096        // of one subscription that are known at the same time
	awaitBatch  = time.Second // for a batch to come, where one that follows it has: they are on one connection
	forgetAfter = time.Minute // what a publisher began, and left
)

// turn is a batch's place in a series: batches of one Publish that are under way at the same time, and are handled in their order.
type turn struct {
	series string
	place  int // from 0
	total  int
}

// String gives the form in which a batch carries it.
func (t turn) String() string {
	return t.series + "/" + strconv.Itoa(t.place) + "/" + strconv.Itoa(t.total)
}

// parseTurn reads what String gives.
func parseTurn(text string) (turn, error) {
	series, rest, _ := strings.Cut(text, "/")
	place, total, ok := strings.Cut(rest, "/")
	if ok && series != "" && len(series) <= maxName {
		p, err := strconv.ParseUint(place, 10, 31)
		n, err2 := strconv.ParseUint(total, 10, 31)
		if err == nil && err2 == nil && p < n {
			return turn{series, int(p), int(n)}, nil
		}
	}
	return turn{}, fmt.Errorf("%.80q is no place in a series", text)
}

// turns has the batches of a subscription's series wait for each other. The zero value is ready; its methods may be called
// concurrently.
type turns struct {
	mu    sync.Mutex
	known map[string]*series
}

// series is one that has begun.
type series struct {
	next  int                   // the place whose turn it is: those before it are over
	here  map[int]chan struct{} // those that have come, by place; closed when it is their turn
	over  map[int]bool          // those beyond next that are over: they have given up
	since time.Time             // when one came last
}

// enter notes that a batch has come. The caller waits for its turn, where the channel is not nil, and then calls leave in any case.
// The error is a *status.Error.
func (q *turns) enter(t turn) (<-chan struct{}, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.known[t.series]
	if s == nil {
		if len(q.known) >= maxSeries/2 {
			q.forget()
		}
		if len(q.known) >= maxSeries {
			return nil, status.Refuse(status.ResourceExhausted, "%d series of batches have begun, and not ended", maxSeries)
		}
		if q.known == nil {
			q.known = map[string]*series{}
		}
		s = &series{here: map[int]chan struct{}{}}
		q.known[t.series] = s
	}
	if s.here[t.place] != nil || s.over[t.place] || t.place < s.next {
		return nil, status.Refuse(status.InvalidArgument, "place %d of a series twice", t.place)
	}
	s.since = time.Now()
	ready := make(chan struct{})
	s.here[t.place] = ready
	if t.place == s.next {
		return nil, nil
	}
	return ready, nil
}

// forget drops what publishers have left. mu is held.
func (q *turns) forget() {
	for name, s := range q.known {
		if len(s.here) == 0 && time.Since(s.since) > forgetAfter {
			delete(q.known, name)
		}
	}
}

// wait waits until it is the batch's turn. The error is a *status.Error.
func (q *turns) wait(ctx context.Context, t turn, ready <-chan struct{}) error {
	patience := time.NewTimer(awaitBatch)
	defer patience.Stop()
	for {
		select {
		case <-ready:
			return nil
		case <-ctx.Done():
			return status.Refuse(status.Canceled, "not handled: %v", context.Cause(ctx))
		case <-patience.C:
			if lacks, place := q.lacks(t); lacks {
				return status.Refuse(status.Unavailable, "place %d of its series has not come, which is before it", place)
			}
			patience.Reset(awaitBatch)
		}
	}
}

// lacks reports whether a batch before t has not come, and which.
func (q *turns) lacks(t turn) (lacks bool, place int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.known[t.series]
	for place = s.next; place < t.place; place++ {
		if s.here[place] == nil && !s.over[place] {
			return true, place
		}
	}
	return false, 0
}

// leave lets the next batch have its turn.
func (q *turns) leave(t turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.known[t.series]
	delete(s.here, t.place)
	if t.place != s.next {
		if s.over == nil {
			s.over = map[int]bool{}
		}
		s.over[t.place] = true
		return
	}
	for s.next++; s.over[s.next]; s.next++ {
		delete(s.over, s.next)
	}
	if s.next >= t.total {
		delete(q.known, t.series)
	} else if next := s.here[s.next]; next != nil {
		close(next)
	}
}
