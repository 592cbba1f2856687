package link

import (
	"context"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// A connection whose peer has vanished without a word, a pulled cable or a stopped process, looks like one whose peer is
// busy. So a peer that is silent for pingAfter while calls wait is asked, and has pingTime to answer.
const (
	pingAfter = 10 * time.Second
	pingTime  = 3 * time.Second
)

// lookEvery is how often a connection with calls is looked at; one on which there were none since is then read by a
// goroutine, so that its end is noticed.
const lookEvery = 100 * time.Millisecond

// watch looks after the calls of a connection: their deadlines, a silent peer, and the time when there are none. It has one timer,
// which calls do not touch, unless one ends before the timer would look.
type watch struct {
	mu     sync.Mutex
	timer  *time.Timer
	ended  bool
	made   uint64 // what calls.made and heard were at the last look
	heard  uint64
	silent int64 // since when nothing has come
	asked  bool  // a Ping is out
}

// watchUntil has the watch look at the deadline at the latest.
func (c *Conn) watchUntil(deadline int64) {
	w, now := &c.calls.watch, callctx.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.calls.alarm.Load() == never { // at rest
		w.silent, w.asked, w.heard = now, false, c.calls.heard.Load()
	}
	c.setAlarm(min(deadline, now+int64(lookEvery)), now)
}

// setAlarm sets the timer, unless it is set to an earlier time. The caller holds the watch's lock.
func (c *Conn) setAlarm(at, now int64) {
	w := &c.calls.watch
	if w.ended || c.calls.alarm.Load() <= at {
		return
	}
	c.calls.alarm.Store(at)
	if d := time.Duration(at - now); w.timer == nil {
		w.timer = time.AfterFunc(d, c.look)
	} else {
		w.timer.Reset(d)
	}
}

// stop ends the watch.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// look is what the timer does.
func (c *Conn) look() {
	now := callctx.Now()
	next := c.expire(now)
	w, t := &c.calls.watch, &c.calls
	w.mu.Lock()
	defer w.mu.Unlock()
	t.alarm.Store(never)
	t.mu.Lock()
	idle := t.waiting.Load() == 0 && t.made == w.made
	w.made = t.made
	t.mu.Unlock()
	if idle {
		c.rest()
	} else {
		c.listen(now)
	}
	if !idle || t.waiting.Load() > 0 { // a call that came meanwhile may have relied on the alarm
		c.setAlarm(min(next, now+int64(lookEvery)), now)
	}
}

// rest leaves a connection without calls to a goroutine.
func (c *Conn) rest() {
	if c.calls.reading.CompareAndSwap(false, true) {
		c.readBehind()
	}
}

// listen asks a silent peer, and gives up one that does not answer. The caller holds the watch's lock.
func (c *Conn) listen(now int64) {
	w := &c.calls.watch
	heard := c.calls.heard.Load()
	quiet := time.Duration(now - w.silent)
	switch {
	case heard != w.heard || c.calls.waiting.Load() == 0:
		w.silent, w.asked, w.heard = now, false, heard
	case !w.asked && quiet >= pingAfter:
		w.asked = true
		c.later(func() { c.post(frame.Header{Kind: transport.Ping}) })
	case w.asked && quiet >= pingAfter+pingTime:
		c.later(c.lost) // which stops the watch
	}
}

// expire answers the calls whose time is over, and gives the earliest deadline of the others.
func (c *Conn) expire(now int64) (next int64) {
	next = never
	t := &c.calls
	var over []*call
	t.mu.Lock()
	for i, r := range t.slots {
		switch {
		case r == nil:
		case r.deadline <= now:
			t.slots[i] = nil
			t.waiting.Add(-1)
			over = append(over, r)
		default:
			next = min(next, r.deadline)
		}
	}
	t.mu.Unlock()
	for _, r := range over {
		id := r.id
		led := t.leader.Load() == r
		r.answer <- context.DeadlineExceeded // r is its caller's from here on
		if led {
			c.in.interrupt()
		}
		c.post(frame.Header{Kind: transport.Cancel, ID: id})
	}
	if len(over) > 0 {
		c.settle()
	}
	return next
}
