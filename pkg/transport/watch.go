package transport

import (
	"context"
	"fmt"
	"time"
)

// A connection whose peer has vanished without a word, a pulled cable or a stopped process, looks like one whose peer is
// busy. So a peer that is silent for pingAfter while calls wait is asked, and has pingTime to answer.
const (
	pingAfter = 10 * time.Second
	pingTime  = 3 * time.Second
)

// watch looks after a Mux while calls wait. It is guarded by the Mux's lock. Its timer runs on while there are calls, and
// is not touched by each of them.
type watch struct {
	timer *time.Timer
	armed bool
	asked bool   // a Ping is out
	heard uint64 // how many messages had come when the timer was set
	lost  error  // the peer did not answer
}

// arm starts the timer, unless it runs. The caller holds the lock.
func (m *Mux) arm() {
	w := &m.watch
	if w.armed {
		return
	}
	w.armed, w.asked = true, false
	m.wait(pingAfter)
}

// wait sets the timer. The caller holds the lock.
func (m *Mux) wait(d time.Duration) {
	w := &m.watch
	w.heard = m.heard.Load()
	if w.timer == nil {
		w.timer = time.AfterFunc(d, m.look)
	} else {
		w.timer.Reset(d)
	}
}

// disarm stops the timer for good. The caller holds the lock.
func (m *Mux) disarm() {
	if m.watch.timer != nil {
		m.watch.timer.Stop()
	}
}

// look is what the timer does.
func (m *Mux) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &m.watch
	switch heard := m.heard.Load() != w.heard; {
	case m.err != nil:
	case len(m.waiting) == 0:
		w.armed = false
	case heard:
		w.asked = false
		m.wait(pingAfter)
	case !w.asked:
		w.asked = true
		m.wait(pingTime) // first: a Pong that comes at once must count as heard since
		m.wg.Go(m.ping)
	default:
		w.lost = fmt.Errorf("transport: %s has been silent for %s and does not answer a ping", m.conn.RemoteAddr(), pingAfter+pingTime)
		m.wg.Go(func() { m.conn.Close() }) // ends the reader
	}
}

// ping asks the peer whether it lives. A Ping that cannot be sent in time is as good as one that is not answered.
func (m *Mux) ping() {
	ctx, stop := context.WithTimeout(context.Background(), pingTime)
	defer stop()
	_ = m.conn.Send(ctx, &Message{Kind: Ping})
}
