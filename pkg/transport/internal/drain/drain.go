// Package drain keeps account of the exchanges that are under way on a server's connection, so that the connection
// can be closed when the last of them was answered, and tells what becomes of each message that arrives.
package drain

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Grace is how long a drained connection stays open after its last answer: a call that was sent before the client read
// GoAway still gets its refusal, and goes elsewhere.
const Grace = 250 * time.Millisecond

// Tracker holds the ids of the calls and streams that were received and not yet answered. The zero Tracker is ready.
// Its methods may be called concurrently.
type Tracker struct {
	mu       sync.Mutex
	open     map[uint32]bool // true for a stream
	streams  int             // how many of them are streams
	writing  int             // answers that are being written
	highest  uint32
	draining bool
	idle     chan struct{} // closed once draining and nothing is open
}

// Verdict says what becomes of a message that arrived.
type Verdict int

// The verdicts.
const (
	Take   Verdict = iota // it is the server's
	Refuse                // the connection is being drained: answer with Refusal
	Drop                  // it belongs to an exchange that has ended
	Broken                // the peer broke the protocol
)

// Received notes a message from the client and judges it. A Call or an Open begins an exchange: its id must not be that
// of one under way, and a connection carries one stream at a time. Data and End must belong to a stream.
func (t *Tracker) Received(kind transport.Kind, id uint32) Verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	stream, open := t.open[id]
	switch kind {
	case transport.Call, transport.Open:
		return t.begin(id, kind == transport.Open)
	case transport.Data, transport.End:
		if open && stream {
			return Take
		}
		if open || id > t.highest {
			return Broken
		}
		return Drop
	case transport.Cancel:
		if !open {
			return Drop
		}
		if !stream {
			t.end(id)
		}
		return Take
	case transport.Ping, transport.Pong:
		return Take
	}
	return Broken
}

func (t *Tracker) begin(id uint32, stream bool) Verdict {
	t.highest = max(t.highest, id)
	if _, taken := t.open[id]; taken || stream && t.streams > 0 {
		return Broken
	}
	if t.draining {
		return Refuse
	}
	if t.open == nil {
		t.open = make(map[uint32]bool)
	}
	t.open[id] = stream
	if stream {
		t.streams++
	}
	return Take
}

// Sending notes that a message to the client is about to be written. A Reply and an End end their exchange: the client may
// begin the next one as soon as it has read them. Sent must follow when the write is over.
func (t *Tracker) Sending(kind transport.Kind, id uint32) {
	if kind != transport.Reply && kind != transport.End {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writing++
	t.end(id)
}

// Sent notes that the write is over, which Sending announced.
func (t *Tracker) Sent(kind transport.Kind) {
	if kind != transport.Reply && kind != transport.End {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writing--
	t.settle()
}

func (t *Tracker) end(id uint32) {
	if t.open[id] {
		t.streams--
	}
	delete(t.open, id)
	t.settle()
}

// Drain begins draining and gives a channel that is closed when nothing is under way any more.
func (t *Tracker) Drain() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.draining {
		t.draining = true
		t.idle = make(chan struct{})
	}
	t.settle()
	return t.idle
}

// Shutdown tells c's peer that the connection takes nothing more, and closes it when nothing is under way and Grace is
// over. ctx's end leaves it as it is. wait reports whether event came while the connection lived and ctx went on.
func (t *Tracker) Shutdown(ctx context.Context, c transport.Conn, wait func(ctx context.Context, event <-chan struct{}) bool) {
	idle := t.Drain()
	if c.Send(ctx, &transport.Message{Kind: transport.GoAway}) == nil && wait(ctx, idle) {
		grace, stop := context.WithTimeout(ctx, Grace)
		defer stop()
		wait(ctx, grace.Done())
	}
	if ctx.Err() == nil {
		_ = c.Close()
	}
}

func (t *Tracker) settle() {
	if !t.draining || len(t.open) > 0 || t.writing > 0 {
		return
	}
	select {
	case <-t.idle:
	default:
		close(t.idle)
	}
}

// Refusal is the answer to a Call or an Open that came to a connection which is being drained.
func Refusal(kind transport.Kind, id uint32) *transport.Message {
	return Failure(kind, id, status.Refuse(status.Unavailable, "the server is shutting down"))
}

// Failure is the answer with which a transport itself fails a Call or an Open.
func Failure(kind transport.Kind, id uint32, e *status.Error) *transport.Message {
	m := &transport.Message{Kind: transport.Reply, ID: id}
	if kind == transport.Open {
		m.Kind = transport.End
	}
	text, err := json.Marshal(e)
	if err != nil { // it is a struct of text and numbers
		text = []byte(e.Error())
	}
	m.Header = metadata.Of(transport.HeaderError, string(text))
	return m
}

// Hold keeps the connection from being idle until Release, for exchanges that the Tracker is not told of one by one, and
// reports whether they may begin: not on a connection that is being drained.
func (t *Tracker) Hold() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writing++
	return !t.draining
}

// Release ends a Hold.
func (t *Tracker) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writing--
	t.settle()
}
