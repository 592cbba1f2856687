package etcd

import (
	"context"
	"errors"
	"iter"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

// refusedRetry is the wait after a refusal: to look at a password costs etcd a tenth of a second.
const refusedRetry = 30 * time.Second

// Watch lists the nodes and reads etcd's changes from there on. While etcd is away it tries again, and yields one error
// wrapping ErrUnavailable; what refuses it yields the error of Register's kind.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return watching(ctx, r, service, (*hub.Hub).Watch)
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return watching(ctx, r, service, (*hub.Hub).WatchChanges)
}

// watching gives what read yields of the set that it keeps as etcd says.
func watching[T any](ctx context.Context, r *Registry, service string, read func(*hub.Hub, context.Context, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
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
	begun   bool // a listing was asked for
}

func (w *watch) run(ctx context.Context) {
	if w.service != "" && !registry.ValidName(w.service) {
		w.set.Replace(nil) // nobody can have that name
		return
	}
	for wait := time.Duration(0); ; {
		begun := time.Now()
		err := w.read(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if time.Since(begun) < retry.First && !retry.Pause(ctx, retry.First) {
				return
			}
			continue
		}
		w.set.Fail(err)
		if time.Since(begun) > steady {
			wait = 0
		}
		if wait = retry.Next(wait); refused(err) {
			wait = refusedRetry
		}
		if !retry.Pause(ctx, retry.Jitter(wait)) {
			return
		}
	}
}

// read lists the nodes, and takes in the changes from there on. It gives no error where it has to begin anew at once: the
// changes that come next are compacted, the login ran out, or the connection is lost, which the next listing tells of.
func (w *watch) read(ctx context.Context) error {
	opts := []clientv3.OpOption{clientv3.WithSerializable()} // what one member knows is good enough to begin with
	if w.begun {
		opts = nil
	}
	w.begun = true
	t, revision, err := w.r.read(ctx, w.service, opts...)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(w.r.streams(ctx))
	defer stop()
	defer context.AfterFunc(w.r.link.while(), stop)()
	w.set.Replace(t.All())
	for rsp := range w.r.client.Watch(ctx, w.r.below(w.service), clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if err := rsp.Err(); err != nil {
			return w.ended(ctx, err)
		}
		w.take(t, rsp.Events)
	}
	if ctx.Err() == nil {
		return w.r.unavailable(errors.New("it ended the watch"))
	}
	return nil
}

// ended gives the error of a watch that etcd ended, as read does.
func (w *watch) ended(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil, errors.Is(err, rpctypes.ErrCompacted):
		return nil
	case wantsLogin(err): // that of the stream, which began long ago
		w.r.renewStreams()
		return nil
	case errors.Is(err, context.Canceled): // another watch's stream went, and took this one with it
		return w.r.unavailable(errors.New("it ended the watch"))
	}
	return w.r.said(err)
}

// take puts changes into t and the set, those of one answer as one.
func (w *watch) take(t *record.Table, events []*clientv3.Event) {
	var ids []string // of nodes that may be others now
	for _, e := range events {
		ids = append(ids, t.Drop(string(e.Kv.Key)))
		if e.Type == clientv3.EventTypeDelete {
			continue
		}
		if err := w.r.take(t, e.Kv); err != nil {
			w.r.o.Logger.Warn("etcd holds a record that is no node", "etcd", w.r.host, "error", err)
			continue
		}
		n, _ := t.At(string(e.Kv.Key))
		ids = append(ids, n.ID)
	}
	put, gone := t.Changes(ids)
	if len(put)+len(gone) > 0 {
		w.set.Apply(put, gone)
	}
}
