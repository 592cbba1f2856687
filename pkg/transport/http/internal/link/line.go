package link

// Who has more to send than the queue takes waits in a line. The first are let in as others leave, as many as there is room for: where
// all of them were woken each time, ten thousand callers of one connection would do little else than to wake up.

// line is those who wait to add a message, or a part of one, in the order in which they came. The writer's lock guards it.
type line struct {
	limit       int // bytes that may be queued when one is let in
	first, last *ticket
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

// ticket gives one, to be given back by leave.
func (b *Buffers) ticket() *ticket { return b.tickets.Get().(*ticket) }

// leave takes a ticket back. It may have been let in at the moment when its connection ended.
func (b *Buffers) leave(t *ticket) {
	t.let = false
	b.tickets.Put(t)
}

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

// maxPassing is how much may be queued before what passes the lines finds no room either.
const maxPassing = 2 * maxQueued

// admit reports whether something may be added, in line with others: it is t's turn, which ends, or there is room and nobody
// waits for it. A nil line is for what passes all lines.
func (w *writer) admit(l *line, t *ticket) bool {
	switch {
	case t != nil && t.let:
		t.let = false
		w.kept -= t.size
		return true
	case l == nil:
		return w.queued <= maxPassing
	}
	return l.first == nil && w.queued+w.kept <= l.limit
}

// letIn lets the first of each line in, where there is so much room that it is worth while to wake them. Those with parts need
// more of it, and so come first.
func (w *writer) letIn() {
	low := w.whole.limit / 2
	if w.parts.first != nil {
		low = w.parts.limit / 2
	}
	if w.queued+w.kept > low {
		return
	}
	for _, l := range [...]*line{&w.parts, &w.whole} {
		for t := l.first; t != nil && w.queued+w.kept < l.limit; t = l.first {
			l.remove(t)
			t.let = true
			w.kept += t.size
			t.turn <- struct{}{}
		}
	}
}

// queue waits in a line until size bytes may be added by t, or for nothing that will come, which add tells. The error is the
// end of p.
func (w *writer) queue(l *line, t *ticket, size int, p patience) error {
	w.mu.Lock()
	if w.err != nil || l.first == nil && w.queued+w.kept <= l.limit {
		w.mu.Unlock()
		return nil
	}
	select {
	case <-t.turn: // of a wait that ended otherwise
	default:
	}
	t.size = size
	l.push(t)
	w.mu.Unlock()
	err := p.await(t.turn)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil && !t.queued:
	case t.queued: // it was neither let in nor sent away
		l.remove(t)
	default:
		<-t.turn // it was, at the same moment
		if t.let {
			t.let = false
			w.kept -= t.size
			w.letIn()
		}
	}
	return err
}

// disperse sends all away.
func (w *writer) disperse() {
	for _, l := range [...]*line{&w.whole, &w.parts} {
		for t := l.first; t != nil; t = l.first {
			l.remove(t)
			t.turn <- struct{}{}
		}
	}
}
