package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	stdhttp "net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/status"
)

const (
	lineTimeout   = 10 * time.Second       // for a watcher to take a line
	answerTimeout = 30 * time.Second       // for a client to take an answer
	readTimeout   = 10 * time.Second       // for a request to come whole
	stopTimeout   = 3 * time.Second        // for requests under way when the server stops
	perNode       = 100 * time.Microsecond // of a watch's line: before the next
	maxPause      = 2 * time.Second
)

// Serve answers on l, which may be a TLS listener, until ctx ends; it closes l and the server, and gives nil then. Beyond
// loopback it refuses to serve without a token, unless told to by Insecure.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	address := l.Addr().String()
	defer s.Close()
	if !hostcheck.Loopback(address) && s.o.Token == "" && !s.o.Insecure {
		_ = l.Close()
		return fmt.Errorf("registry: %s is reached by other machines: give the server a token, or let it listen on 127.0.0.1", address)
	}
	server := &stdhttp.Server{
		Handler:           s.guard(address),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       readTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() { failed <- server.Serve(netutil.LimitListener(l, s.o.MaxConns)) })
	defer serving.Wait()
	select {
	case err := <-failed:
		return fmt.Errorf("registry: serve %s: %w", address, err)
	case <-ctx.Done():
	}
	s.end() // watches would keep Shutdown waiting
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		return errors.Join(fmt.Errorf("registry: stop %s: %w", address, err), server.Close())
	}
	return nil
}

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
	lines := &lines{s: s, service: name, changes: r.URL.Query().Get("changes") == "true", news: s.nodes.Follow(name)}
	defer lines.news.Stop()
	w.Header().Set("Content-Type", linesType)
	control := stdhttp.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // ReadTimeout has done its work; not every server has deadlines
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var settled <-chan time.Time
	if left := s.o.Grace - time.Since(s.started); left > 0 {
		timer := time.NewTimer(left)
		defer timer.Stop()
		settled = timer.C
	}
	for {
		line, ok := set{}, true
		select {
		case <-r.Context().Done():
			return
		case <-s.life.Done():
			return
		case <-beat.C:
			line = lines.beat()
		case <-settled:
			line = lines.beat()
		case <-lines.news.News():
			line, ok = lines.next()
		}
		if !ok {
			continue
		}
		if err := send(w, control, line); err != nil {
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
}

func (l *lines) beat() set {
	return set{Epoch: l.s.epoch, Revision: l.s.nodes.Revision(), Starting: l.s.starting()}
}

// next gives the line for what is new, if anything is.
func (l *lines) next() (set, bool) {
	line := set{Epoch: l.s.epoch, Starting: l.s.starting()}
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
func (s *Server) pause(ctx context.Context, line set) bool {
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

func send(w stdhttp.ResponseWriter, control *stdhttp.ResponseController, line set) error {
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	_ = control.SetWriteDeadline(time.Now().Add(lineTimeout)) // not every server has deadlines
	if _, err := w.Write(append(data, '\n')); err != nil {
		return err
	}
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
