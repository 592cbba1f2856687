package link

// Who has more to send than the queue takes waits in a line. The first are let in as others leave, as many as there is room for: where
// all of them were woken each time, ten thousand callers of one connection would do little else than to wake up.

// line is those who wait to add a message, in the order in which they came. The writer's lock guards it.
type line struct {
	first, last *ticket
	kept        int // bytes of room that are kept for those who were let in, and have not added their messages yet
}

// ticket is a place in a line. It may be used again, for one message at a time.
type ticket struct {
	size       int
	turn       chan struct{} // one value: it was let in, or there is nothing left to wait for
	prev, next *ticket
	queued     bool // it is in the line
	let        bool // it was let in: room is kept for it
}

func newTicket() *ticket { return &ticket{turn: make(chan struct{}, 1)} }

func (l *line) push(t *ticket) {
	t.queued, t.prev, t.next = true, l.last, nil
	if l.last == nil {
		l.first = t
	} else {
		l.last.next = t
	}
	l.last = t
}

func (l *line) remove(t *ticket) {
	if t.prev == nil {
		l.first = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		l.last = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.queued, t.prev, t.next = false, nil, nil
}

// admit reports whether something may be added: it is t's turn, which ends, or there is room. What passes the line has a limit of its
// own.
func (w *writer) admit(t *ticket, limit int) bool {
	if t != nil && t.let {
		t.let = false
		w.line.kept -= t.size
		return true
	}
	return w.queued+w.line.kept <= limit && (limit != maxQueued || w.line.first == nil)
}

// letIn lets the first in, where there is room.
func (w *writer) letIn() {
	if w.queued+w.line.kept > maxQueued/2 { // so that it is worth while to wake them
		return
	}
	for t := w.line.first; t != nil && w.queued+w.line.kept < maxQueued; t = w.line.first {
		w.line.remove(t)
		t.let = true
		w.line.kept += t.size
		t.turn <- struct{}{}
	}
}

// queue waits until a message of that size may be added by t, or for nothing that will come, which add tells. The error is the
// end of p.
func (w *writer) queue(t *ticket, size int, p patience) error {
	w.mu.Lock()
	if w.err != nil || w.admit(t, maxQueued) {
		w.mu.Unlock()
		return nil
	}
	t.size = size
	w.line.push(t)
	w.mu.Unlock()
	err := p.await(t.turn)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case t.queued: // it was neither let in nor sent away
		w.line.remove(t)
	case err != nil:
		<-t.turn // it has, at the same moment
		if t.let {
			t.let = false
			w.line.kept -= t.size
			w.letIn()
		}
	}
	return err
}

// disperse sends all away.
func (w *writer) disperse() {
	for t := w.line.first; t != nil; t = w.line.first {
		w.line.remove(t)
		t.turn <- struct{}{}
	}
}
