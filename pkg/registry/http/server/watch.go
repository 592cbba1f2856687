package server

import (
	"context"
	"math"
	stdhttp "net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/outgoing"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/status"
)

const (
	lineTimeout = 10 * time.Second       // for a watcher to take a line
	perNode     = 100 * time.Microsecond // of a watch's line: before the next
	maxPause    = 2 * time.Second

	fewNodes  = 8                      // of a line that waits for no other one
	heldBytes = 32 << 20               // of what is being sent, before lines wait
	patience  = 500 * time.Millisecond // with a line that is under way, while others wait
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
	defer func() { lines.news.Stop() }()
	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	defer context.AfterFunc(s.life, stop)()
	w.Header().Set("Content-Type", wire.LinesType)
	lines.control = stdhttp.NewResponseController(w)
	_ = lines.control.SetReadDeadline(time.Time{}) // ReadTimeout has done its work; not every server has deadlines
	beat := time.NewTicker(wire.Heartbeat)
	defer beat.Stop()
	var settled <-chan time.Time
	if left := s.o.Grace - time.Since(s.started); left > 0 {
		timer := time.NewTimer(left)
		defer timer.Stop()
		settled = timer.C
	}
	late := make(chan struct{}, 1) // there is a line for which there was no room
	for {
		var line *outgoing.Line
		nodes, news := 0, true
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			news = false
		case <-settled:
			news = false
		case <-lines.news.News():
		case <-late:
		}
		if news {
			line, nodes, err = lines.next(ctx)
		}
		if err != nil && ctx.Err() != nil {
			return
		}
		if err != nil {
			select {
			case late <- struct{}{}:
			default:
			}
		}
		if line == nil && (err != nil || !news) && lines.begun {
			line = lines.hold(lines.beat())
		}
		if line != nil && !s.line(w, lines.control, line) || !s.pause(ctx, nodes) {
			return // cut off: it did not read, or it has gone
		}
	}
}

// lines makes the lines of a watch.
type lines struct {
	s       *Server
	service string
	changes bool // only what changed, after the first line
	news    *hub.Reader
	control *stdhttp.ResponseController

	since *uint64 // of a watch that goes on after a revision: until that is done
	begun bool    // there was a line
}

// lines begins a watch, where its client was if that may still be known.
func (s *Server) lines(service string, query url.Values) (*lines, error) {
	l := &lines{s: s, service: service, changes: query.Get("changes") == "true"}
	if asked := query.Get("revision"); asked != "" {
		since, err := strconv.ParseUint(asked, 10, 64)
		if err != nil || !l.changes || !wire.ValidEpoch(query.Get("epoch")) {
			return nil, status.New(status.InvalidArgument, "revision %.40q: want a line's revision, with its epoch, and changes=true", asked)
		}
		if query.Get("epoch") == s.epoch {
			l.since = &since
		}
	}
	l.news = s.nodes.Follow(service)
	return l, nil
}

func (l *lines) beat() wire.Set {
	return wire.Set{Epoch: l.s.epoch, Revision: l.news.Revision(), Starting: l.s.starting()}
}

// next gives the line for what is new, if anything is, with the number of its nodes. A long one waits for its turn; where that comes too late for
// the next heartbeat, it gives an error.
func (l *lines) next(ctx context.Context) (line *outgoing.Line, nodes int, err error) {
	if l.short() {
		if set, _, ok := l.set(); ok {
			line, nodes = l.hold(set), size(set)
		}
	} else {
		if l.begun {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, wire.Heartbeat)
			defer stop()
		}
		line, err = l.s.sent.Queue(ctx, l.end, func() (pieces [][]byte) {
			pieces, nodes = l.long()
			l.extend()
			return pieces
		})
	}
	l.begun = l.begun || line != nil
	return line, nodes, err
}

// short reports whether the next line has few nodes.
func (l *lines) short() bool {
	if l.since != nil {
		return l.s.nodes.Revision()-*l.since <= fewNodes
	}
	return l.news.Ahead(!l.changes) <= fewNodes
}

// long gives a line in pieces, which watches share: the text of all nodes, or one that is the same for watches which have the same.
func (l *lines) long() (pieces [][]byte, nodes int) {
	if l.service == "" && l.since == nil && (!l.changes || l.news.Whole()) {
		if !l.news.Skip(math.MaxUint64) {
			return nil, 0
		}
		pieces, revision := l.s.bodies.All()
		l.news.Skip(revision) // it has that too, if nothing came later
		return pieces, l.s.nodes.Len()
	}
	set, key, ok := l.set()
	if !ok {
		return nil, 0
	}
	return l.s.pieces(set, key), size(set)
}

// change names what changed of a service between two revisions.
type change struct {
	service  string
	from, to uint64
}

// whole names a set by the slice that the hub shares.
type whole struct {
	first *registry.Node
	n     int
}

// set gives what is new, if anything is, and what names it.
func (l *lines) set() (line wire.Set, key any, ok bool) {
	line = wire.Set{Epoch: l.s.epoch, Starting: l.s.starting()}
	if l.since != nil {
		since := *l.since
		l.news.Stop()
		l.since = nil
		var c registry.Change
		if l.news, c, line.Revision, ok = l.s.nodes.Resume(l.service, since); ok {
			line.Put, line.Gone = c.Put, c.Gone
		}
		return line, change{l.service, since, line.Revision}, ok // unless ok, there is news at once: the whole set
	}
	if !l.changes {
		nodes, revision, ok, _ := l.news.Set()
		line.Nodes, line.Revision = &nodes, revision
		return line, wholeOf(nodes), ok
	}
	from := l.news.Revision()
	c, revision, ok, _ := l.news.Change()
	line.Revision = revision
	if c.Reset {
		line.Nodes = &c.Put
		return line, wholeOf(c.Put), ok
	}
	line.Put, line.Gone = c.Put, c.Gone
	return line, change{l.service, from, revision}, ok
}

func wholeOf(nodes []registry.Node) whole {
	if len(nodes) == 0 {
		return whole{}
	}
	return whole{&nodes[0], len(nodes)}
}

// hold gives a line of few nodes.
func (l *lines) hold(set wire.Set) *outgoing.Line {
	l.extend()
	return l.s.sent.Hold(l.end, [][]byte{l.s.bodies.Set(set)})
}

// extend gives the watcher the time to take a line. Not every server has deadlines.
func (l *lines) extend() { _ = l.control.SetWriteDeadline(time.Now().Add(lineTimeout)) }

// end makes a write fail.
func (l *lines) end() { _ = l.control.SetWriteDeadline(time.Unix(1, 0)) }

// pieces gives a set in pieces, the one with its nodes shared by all who are sent what key names.
func (s *Server) pieces(set wire.Set, key any) [][]byte {
	return s.bodies.Pieces(set, func(build func() []byte) []byte { return s.sent.Share(key, build) })
}

func size(s wire.Set) int {
	n := len(s.Put) + len(s.Gone)
	if s.Nodes != nil {
		n = len(*s.Nodes)
	}
	return n
}

// pause keeps a watch of a large set from being sent more often than is good for anybody. It gives false at the end.
func (s *Server) pause(ctx context.Context, nodes int) bool {
	d := min(time.Duration(nodes)*perNode, maxPause)
	if d < time.Millisecond {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// line sends a line, and reports whether its watcher took it.
func (s *Server) line(w stdhttp.ResponseWriter, control *stdhttp.ResponseController, line *outgoing.Line) bool {
	err := error(nil)
	for _, piece := range line.Pieces {
		if _, err = w.Write(piece); err != nil {
			break
		}
	}
	if err == nil {
		err = control.Flush()
	}
	if !line.Done() || err != nil {
		return false
	}
	s.metrics.lines.Add(1)
	return true
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
