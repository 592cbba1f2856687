package server

import (
	"context"
	stdhttp "net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/status"
)

const (
	lineTimeout = 10 * time.Second       // for a watcher to take a line
	perNode     = 100 * time.Microsecond // of a watch's line: before the next
	maxPause    = 2 * time.Second
)

// watch streams sets.
func (s *Server) watch(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	name := r.URL.Query().Get("service")
	if name != "" && !registry.ValidName(name) {
		s.refuse(w, status.InvalidArgument, "service %.300q is no service's name", name)
		return
	}
	if !s.enter() {
		w.Header().Set("Retry-After", "5")
		s.refuse(w, status.ResourceExhausted, "%d watches are open, and no more are taken", s.o.MaxWatches)
		return
	}
	defer s.leave()
	lines, err := s.lines(name, r.URL.Query())
	if err != nil {
		s.fail(w, err)
		return
	}
	defer lines.news.Stop()
	w.Header().Set("Content-Type", wire.LinesType)
	control := stdhttp.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // ReadTimeout has done its work; not every server has deadlines
	beat := time.NewTicker(wire.Heartbeat)
	defer beat.Stop()
	var settled <-chan time.Time
	if left := s.o.Grace - time.Since(s.started); left > 0 {
		timer := time.NewTimer(left)
		defer timer.Stop()
		settled = timer.C
	}
	for {
		line, ok := wire.Set{}, true
		select {
		case <-r.Context().Done():
			return
		case <-s.life.Done():
			return
		case <-beat.C:
			line = lines.beat()
		case <-settled:
			line = lines.beat()
		case <-lines.resumed:
			line, lines.resumed = lines.first, nil
		case <-lines.news.News():
			line, ok = lines.next()
		}
		if !ok {
			continue
		}
		if err := s.line(w, control, line); err != nil {
			return // cut off: it did not read, or it has gone
		}
		if !s.pause(r.Context(), line) {
			return
		}
	}
}

// lines makes the lines of a watch.
type lines struct {
	s       *Server
	service string
	changes bool // only what changed, after the first line
	news    *hub.Reader

	// Of a watch that goes on after a revision: what has changed since, and a channel that is ready. Both nil otherwise, and later.
	first   wire.Set
	resumed chan struct{}
}

// lines begins a watch, where its client was if that is still known.
func (s *Server) lines(service string, query url.Values) (*lines, error) {
	l := &lines{s: s, service: service, changes: query.Get("changes") == "true"}
	if asked := query.Get("revision"); asked != "" {
		since, err := strconv.ParseUint(asked, 10, 64)
		if err != nil || !l.changes || !wire.ValidEpoch(query.Get("epoch")) {
			return nil, status.New(status.InvalidArgument, "revision %.40q: want a line's revision, with its epoch, and changes=true", asked)
		}
		if query.Get("epoch") == s.epoch {
			news, c, revision, ok := s.nodes.Resume(service, since)
			l.news = news
			if ok {
				l.first = wire.Set{Epoch: s.epoch, Revision: revision, Starting: s.starting(), Put: c.Put, Gone: c.Gone}
				l.resumed = make(chan struct{})
				close(l.resumed)
			}
			return l, nil
		}
	}
	l.news = s.nodes.Follow(service)
	return l, nil
}

func (l *lines) beat() wire.Set {
	return wire.Set{Epoch: l.s.epoch, Revision: l.news.Revision(), Starting: l.s.starting()}
}

// next gives the line for what is new, if anything is.
func (l *lines) next() (wire.Set, bool) {
	line := wire.Set{Epoch: l.s.epoch, Starting: l.s.starting()}
	if !l.changes {
		nodes, revision, ok, _ := l.news.Set()
		line.Nodes, line.Revision = &nodes, revision
		return line, ok
	}
	c, revision, ok, _ := l.news.Change()
	line.Revision = revision
	if c.Reset {
		line.Nodes = &c.Put
	} else {
		line.Put, line.Gone = c.Put, c.Gone
	}
	return line, ok
}

// pause keeps a watch of a large set from being sent more often than is good for anybody. It gives false at the end.
func (s *Server) pause(ctx context.Context, line wire.Set) bool {
	size := len(line.Put) + len(line.Gone)
	if line.Nodes != nil {
		size = len(*line.Nodes)
	}
	d := min(time.Duration(size)*perNode, maxPause)
	if d < time.Millisecond {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-s.life.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (s *Server) line(w stdhttp.ResponseWriter, control *stdhttp.ResponseController, line wire.Set) error {
	_ = control.SetWriteDeadline(time.Now().Add(lineTimeout)) // not every server has deadlines
	if _, err := w.Write(s.bodies.Set(line)); err != nil {
		return err
	}
	s.metrics.lines.Add(1)
	return control.Flush()
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts >= s.o.MaxWatches {
		return false
	}
	s.counts++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts--
}
