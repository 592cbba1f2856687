// Package outgoing bounds what a server holds for readers who do not take it: the texts that are being sent, over all connections together.
//
//	l := outgoing.New(32<<20, 500*time.Millisecond)
//	line, err := l.Queue(ctx, end, build) // one after the other, and when there is room
//	line := l.Hold(end, pieces)           // at once
//	for _, piece := range line.Pieces { w.Write(piece) }
//	ok := line.Done()
//
// A text that many are being sent counts once. Where more is held than the limit, what is queued waits, and the line that has been under way
// longest is ended as soon as its reader has had the time of patience. At twice the limit lines are ended at once. So those go first
// who read nothing. The limit is never less than three times the largest line.
package outgoing

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// Ledger knows all lines that are under way. Use New. Its methods may be called concurrently.
type Ledger struct {
	patience time.Duration
	turn     chan struct{} // of who builds a queued line

	mu     sync.Mutex
	limit  int
	held   int            // bytes of texts
	texts  map[*byte]text // by the last byte, since a piece may be a text without its beginning
	shared map[any][]byte // while a line holds them
	lines  list.List      // of *Line, the oldest first
	freed  chan struct{}  // closed, and made anew, where lines are done
	ended  uint64
}

// text is held by so many lines.
type text struct {
	lines int
	size  int
	key   any // of shared, else nil
}

// Line is what one reader is being sent.
type Line struct {
	Pieces [][]byte // only read

	ledger *Ledger
	since  time.Time
	end    func()
	at     *list.Element // nil: it was ended, or is done
}

// New makes a ledger of a limit in bytes.
func New(limit int, patience time.Duration) *Ledger {
	return &Ledger{limit: limit, patience: patience, turn: make(chan struct{}, 1), texts: map[*byte]text{}, shared: map[any][]byte{}, freed: make(chan struct{})}
}

// Queue waits for its turn and for room, and holds what build gives then: a state of now, not of when it came. Where build gives no pieces there is no line.
// end makes a write that is under way fail; it is called with the ledger locked, and does not block.
func (l *Ledger) Queue(ctx context.Context, end func(), build func() [][]byte) (*Line, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.turn }()
	if err := l.room(ctx); err != nil {
		return nil, err
	}
	pieces := build()
	if len(pieces) == 0 {
		return nil, nil
	}
	return l.Hold(end, pieces), nil
}

// room waits until less is held than the limit.
func (l *Ledger) room(ctx context.Context) error {
	for {
		wait, freed := l.make(time.Now())
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-freed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// make makes room where it may. It gives how long until it may make more; 0: there is room.
func (l *Ledger) make(now time.Time) (time.Duration, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.held >= l.limit && l.lines.Len() > 0 {
		oldest := l.lines.Front().Value.(*Line)
		if wait := oldest.since.Add(l.patience).Sub(now); wait > 0 {
			return wait, l.freed
		}
		l.cut(oldest)
	}
	return 0, nil
}

// Share gives the text under a key, which build makes unless a line holds it. The text is
// among the pieces of the caller's next line.
func (l *Ledger) Share(key any, build func() []byte) []byte {
	l.mu.Lock()
	made := l.shared[key]
	l.mu.Unlock()
	if made != nil {
		return made
	}
	if made = build(); len(made) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shared[key] = made
	l.texts[&made[len(made)-1]] = text{key: key}
	return made
}

// Hold notes that pieces are being sent, none of which is empty.
func (l *Ledger) Hold(end func(), pieces [][]byte) *Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	line, size := &Line{Pieces: pieces, ledger: l, since: time.Now(), end: end}, 0
	line.at = l.lines.PushBack(line)
	for _, piece := range pieces {
		last := &piece[len(piece)-1]
		t := l.texts[last]
		if t.lines++; t.lines == 1 {
			t.size = len(piece)
			l.held += t.size
		}
		l.texts[last] = t
		size += len(piece)
	}
	l.limit = max(l.limit, 3*size)
	for l.held > 2*l.limit && l.lines.Front() != line.at {
		l.cut(l.lines.Front().Value.(*Line))
	}
	return line
}

// Done tells that a line is not sent any more. It gives false where the line was ended: so is the connection.
func (line *Line) Done() bool {
	l := line.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if line.at == nil {
		return false
	}
	l.drop(line)
	return true
}

// Held gives the bytes of all texts that are being sent.
func (l *Ledger) Held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// Ended gives how many lines were ended.
func (l *Ledger) Ended() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// The rest is called with the lock held.

// cut ends a line.
func (l *Ledger) cut(line *Line) {
	l.ended++
	l.drop(line)
	line.end()
}

func (l *Ledger) drop(line *Line) {
	l.lines.Remove(line.at)
	line.at = nil
	for _, piece := range line.Pieces {
		last := &piece[len(piece)-1]
		t := l.texts[last]
		if t.lines--; t.lines > 0 {
			l.texts[last] = t
			continue
		}
		l.held -= t.size
		delete(l.texts, last)
		if t.key != nil {
			delete(l.shared, t.key)
		}
	}
	close(l.freed)
	l.freed = make(chan struct{})
}
