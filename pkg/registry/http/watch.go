package http

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	stdhttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

// errSilent: a watch's connection gave no line for too long.
var errSilent = errors.New("no line of the watch in time")

// Watch reads the server's stream, on a connection of its own. While the server is away it tries again, and yields one
// error wrapping ErrUnavailable. From a server that was started anew, and whose owners are still coming back, a node
// that was known before and is missing is kept until the server says that it has settled.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return follow(ctx, r, service, (*hub.Hub).Watch)
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return follow(ctx, r, service, (*hub.Hub).WatchChanges)
}

// follow gives what read yields of the set that it keeps as the server's stream says.
func follow[T any](ctx context.Context, r *Registry, service string, read func(*hub.Hub, context.Context, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if r.usable(ctx) != nil {
			return
		}
		ctx, stop := r.within(ctx)
		defer stop()
		w := &watch{r: r, service: service, set: hub.NewPending().Sharing()}
		for news, err := range hub.Kept(ctx, w.set, w.run, read) {
			if r.life.Err() != nil || !yield(news, err) {
				return
			}
		}
	}
}

// watch is one running Watch: it keeps a set by what it reads.
type watch struct {
	r       *Registry
	service string
	set     *hub.Hub

	// Where the set stands: a watch that is made anew goes on from there.
	epoch    string
	revision uint64
	kept     map[string]registry.Node // of an epoch before, not seen in this one yet
	wait     time.Duration
}

func (w *watch) run(ctx context.Context) {
	if w.service != "" && !registry.ValidName(w.service) {
		w.set.Replace(nil) // nobody can have that name
		return
	}
	for {
		err := w.stream(ctx)
		if ctx.Err() != nil || w.r.life.Err() != nil {
			return
		}
		w.set.Fail(err)
		w.wait = retry.Next(w.wait)
		if !retry.Pause(ctx, retry.Jitter(w.wait)) {
			return
		}
	}
}

// stream reads one connection until it ends.
func (w *watch) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(w.r.o.Timeout, func() { cancel(errSilent) })
	defer silent.Stop()
	query := url.Values{"changes": {"true"}}
	if w.service != "" {
		query.Set("service", w.service)
	}
	if w.epoch != "" {
		query.Set("epoch", w.epoch)
		query.Set("revision", strconv.FormatUint(w.revision, 10))
	}
	req, err := w.r.request(ctx, stdhttp.MethodGet, wire.WatchPath, query, nil)
	if err != nil {
		return err
	}
	rsp, err := w.r.client.Do(req)
	if err != nil {
		return w.lost(ctx, err)
	}
	defer rsp.Body.Close()
	if rsp.StatusCode != stdhttp.StatusOK {
		body, err := w.r.read(rsp)
		if err != nil {
			return w.lost(ctx, err)
		}
		return w.r.refused(rsp, body)
	}
	if !isType(rsp, wire.LinesType) {
		return w.r.unavailable(wire.ErrNoAnswer)
	}
	lines, known := bufio.NewReaderSize(rsp.Body, 32<<10), false
	for {
		line, err := readLine(lines, w.r.o.MaxAnswer)
		if err != nil {
			return w.lost(ctx, err)
		}
		s, err := wire.ParseSet(line)
		if err != nil {
			return w.r.unavailable(err)
		}
		silent.Reset(wire.WatchDead)
		w.r.hear(s.Epoch)
		if s.Nodes == nil && !known && s.Epoch != w.epoch {
			return w.r.unavailable(wire.ErrNoAnswer)
		}
		w.take(s)
		if !known { // the set, or what changed in it since the last watch
			known = true
			w.set.Mend()
		}
	}
}

// take puts what a line says into the set.
func (w *watch) take(s wire.Set) {
	w.wait, w.revision = 0, s.Revision
	if s.Nodes != nil {
		w.set.Replace(w.join(s, w.r.proper(s, *s.Nodes, w.service)))
		return
	}
	put := w.r.proper(s, s.Put, w.service)
	for _, n := range put {
		delete(w.kept, n.ID)
	}
	gone := s.Gone
	if !s.Starting {
		gone = slices.AppendSeq(gone, maps.Keys(w.kept))
		w.kept = nil
	}
	if len(put)+len(gone) > 0 {
		w.set.Apply(put, gone)
	}
}

// lost is the error of a connection that ended.
func (w *watch) lost(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		err = errSilent
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("it ended the watch")
	}
	return w.r.unavailable(err)
}

// join adds the nodes of the epoch before that may come back.
func (w *watch) join(s wire.Set, nodes []registry.Node) []registry.Node {
	if s.Epoch != w.epoch {
		if w.epoch != "" {
			w.kept = map[string]registry.Node{}
			for _, n := range w.set.List() {
				w.kept[n.ID] = n
			}
		}
		w.epoch = s.Epoch
	}
	if !s.Starting {
		w.kept = nil
	}
	for _, n := range nodes {
		delete(w.kept, n.ID)
	}
	for _, n := range w.kept {
		nodes = append(nodes, n)
	}
	return nodes
}

// readLine reads a line of limit bytes at most, without its end. A line that is not ended is none.
func readLine(r *bufio.Reader, limit int64) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if int64(len(line)+len(part)) > limit {
			return nil, fmt.Errorf("%w: a line of over %d bytes", wire.ErrTooLong, limit)
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
