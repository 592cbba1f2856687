package link

import (
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
)

// tick is how often connections are looked at on which handlers run. A handler that is seen twice has held up its
// connection for one tick at least, and for two at most.
const tick = 5 * time.Millisecond

// Monitor takes the reading of a connection away from a handler that holds it up. It looks at connections on which there
// are calls, and sleeps when there are none. The zero Monitor is ready.
type Monitor struct {
	mu      sync.Mutex
	watched []*serving
	running bool
}

// add has s looked at.
func (m *Monitor) add(s *serving) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.watched.Swap(true) {
		return
	}
	m.watched = append(m.watched, s)
	if !m.running {
		m.running = true
		go m.run()
	}
}

// run looks until no handler runs any more.
func (m *Monitor) run() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for range t.C {
		if !m.look() {
			return
		}
	}
}

// look reports whether there is anything left to look at.
func (m *Monitor) look() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.watched[:0]
	for _, s := range m.watched {
		turn := s.turn.Load()
		same := turn == s.seen
		s.seen = turn
		switch {
		case same && turn%2 == 1:
			s.takeOver(turn)
		case turn%2 == 1:
			s.metAt.Store(callctx.Now())
			s.met.Store(turn)
		case same:
			// Nothing has run since the last look. One that begins right now sees that it is not watched, or is seen here.
			s.watched.Store(false)
			if s.turn.Load() == turn || s.watched.Swap(true) {
				continue
			}
		}
		kept = append(kept, s)
	}
	clear(m.watched[len(kept):])
	m.watched = kept
	m.running = len(kept) > 0
	return m.running
}
