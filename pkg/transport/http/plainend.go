package http

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/transport/http/internal/mucp"
)

// How often a server is asked whether a stream still is, of which all was sent: soon after that and after each of its messages, and then ever less
// often. A handler's queue has room for 128 messages, these among them.
const (
	firstAsk = 20 * time.Millisecond
	lastAsk  = 30 * time.Second
	maxAsks  = 100
)

// goneEndpoint is an endpoint that no service has. The first part is what go-micro's servers name when they do not find it.
const (
	goneService  = "MicroStreamEnded"
	goneEndpoint = goneService + ".Ended"
)

// finish sends the end of what is sent, and has the server's own end be looked for.
func (s *plainStream) finish(ctx context.Context) error {
	if s.finished.Swap(true) {
		return nil
	}
	if err := s.write(ctx, mucp.EOS, nil); err != nil {
		return err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.c.closed { // else nobody waits for the goroutine
		s.c.calls.Go(s.awaitEnd)
	}
	return nil
}

// awaitEnd asks the server again and again whether the stream still is, until it has ended: by a request with the stream's number for an endpoint
// that there is not. While the stream is, that is one of its messages, and does not reach a handler unless it reads on behind the end.
// Once it is not, the server answers with an error. Only a second answer counts: one goroutine of the server's writes it, and another
// what is left of the stream.
func (s *plainStream) awaitEnd() {
	lines := s.goneLines()
	pause := firstAsk
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for asked := 0; asked < maxAsks; {
		select {
		case <-s.said: // it may have been the last
			pause = firstAsk
			timer.Reset(pause)
			continue
		case <-timer.C:
		case <-s.c.ctx.Done():
			return
		}
		// That it tells of an error keeps it from being taken for a message with a body.
		if s.over.Load() || s.writeWith(s.c.ctx, lines, "the caller has sent all", nil) != nil {
			return // the reader tells why
		}
		asked++
		pause = min(pause+pause/2, lastAsk)
		timer.Reset(pause)
	}
}

// hear has the server be asked soon, since it has said something.
func (s *plainStream) hear() {
	if !s.finished.Load() {
		return
	}
	select {
	case s.said <- struct{}{}:
	default:
	}
}

// goneLines gives the lines of the stream's requests, for goneEndpoint.
func (s *plainStream) goneLines() (lines []byte) {
	for line := range bytes.Lines(s.lines) {
		switch name, _, _ := bytes.Cut(line, []byte(":")); string(name) {
		case "Micro-Endpoint", "Micro-Method":
			line = mucp.AppendLine(nil, string(name), goneEndpoint)
		}
		lines = append(lines, line...)
	}
	return lines
}

// isGone reports whether an answer is one to awaitEnd: the stream is no more.
func (s *plainStream) isGone(answer *http.Response) bool {
	return s.finished.Load() && strings.Contains(first(answer.Header, headerError, "X-Micro-Error"), goneService)
}
