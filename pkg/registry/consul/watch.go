package consul

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

const (
	steady       = 10 * time.Second      // what went well for so long begins anew with its retries
	refusedRetry = 30 * time.Second      // after a refusal
	firstPace    = 50 * time.Millisecond // between two readings, doubled for those that found nothing new up to
	lastPace     = time.Second
	allPace      = 200 * time.Millisecond // between two readings of what services there are, and of the checks
)

// Watch asks Consul for the nodes, and again whenever they may have changed. While Consul is away it tries again, and yields
// one error wrapping ErrUnavailable; what refuses it yields the error of Register's kind.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return watching(ctx, r, service, (*hub.Hub).Watch)
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return watching(ctx, r, service, (*hub.Hub).WatchChanges)
}

// watching gives what read yields of the set that it keeps as Consul says.
func watching[T any](ctx context.Context, r *Registry, service string, read func(*hub.Hub, context.Context, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if r.usable(ctx) != nil {
			return
		}
		ctx, stop := r.within(ctx)
		defer stop()
		w := &watch{r: r, service: service, hub: hub.NewPending().Sharing(), set: newSet(r)}
		for news, err := range hub.Kept(ctx, w.hub, w.run, read) {
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
	hub     *hub.Hub
	set     *set
	pace    time.Duration
	leader  bool // something went wrong: the next reading is of what the leader knows
}

func (w *watch) run(ctx context.Context) {
	follow := w.one
	switch {
	case w.service == "":
		follow = w.all
	case !registry.ValidName(w.service):
		w.hub.Replace(nil) // nobody can have that name
		return
	}
	for wait := time.Duration(0); ; {
		begun := time.Now()
		err := follow(ctx)
		if ctx.Err() != nil {
			return
		}
		w.leader = true
		if err == nil {
			if pace := max(w.pace, firstPace); time.Since(begun) < pace && !retry.Pause(ctx, pace) {
				return
			}
			continue
		}
		w.hub.Fail(err)
		if time.Since(begun) > steady {
			wait = 0
		}
		if wait = retry.Next(wait); refusal(err) {
			wait = refusedRetry
		}
		if !retry.Pause(ctx, retry.Jitter(wait)) {
			return
		}
	}
}

// one follows a service. It gives no error where it has to begin anew at once, as the connection is lost, which the next
// reading tells of.
func (w *watch) one(ctx context.Context) error {
	for q := (query{leader: w.leader}); ; {
		begun := time.Now()
		a, err := w.set.read(ctx, w.service, q)
		if err != nil {
			return broken(err, q)
		}
		w.show(begun)
		if q = (query{index: a.index()}); !retry.Pause(ctx, w.pace) {
			return nil
		}
	}
}

// broken gives the error of a reading, as one does: where Consul was to wait for a change there is none, unless the next connection
// was tried in vain already.
func broken(err error, q query) error {
	if q.index > 0 && errors.Is(err, registry.ErrUnavailable) && !remote.Unreached(err) {
		return nil
	}
	return err
}

// show gives the set, which was asked for at some time, to the readers. Consul answers for more than changes of it, so the pace slows
// down while there are none.
func (w *watch) show(asked time.Time) {
	before := w.hub.Revision()
	w.hub.Replace(w.set.table.All())
	if w.hub.Revision() != before || time.Since(asked) > lastPace {
		w.pace = 0
	}
	w.pace = min(max(2*w.pace, firstPace), lastPace)
}

// errAnew: a poll has to begin anew.
var errAnew = errors.New("anew")

// all follows all services: their names and which checks are critical, and reads the services when either changes. Its error
// is as that of one.
func (w *watch) all(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var polling sync.WaitGroup
	defer polling.Wait()
	defer cancel(nil)
	q := query{leader: w.leader}
	services, checks := make(chan []string, 1), make(chan []string, 1)
	polling.Go(func() { cancel(poll(ctx, q, w.r.names, services)) })
	polling.Go(func() { cancel(poll(ctx, q, w.r.criticals, checks)) })
	var names []string
	for known := 0; ; {
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errAnew) {
				return err
			}
			return nil
		case names = <-services:
			known |= 1
		case <-checks:
			known |= 2
		}
		if known != 3 {
			continue
		}
		begun := time.Now()
		if err := w.set.readAll(ctx, names, q); err != nil {
			cancel(err) // unless it is the end of ctx
			continue
		}
		w.show(begun)
		q = query{}
		retry.Pause(ctx, w.pace)
	}
}

// poll asks again and again, and tells of each answer; of several that are not taken, the last. Its error is that of one, but
// errAnew where that gives none.
func poll(ctx context.Context, q query, ask func(context.Context, query) ([]string, *answer, error), tell chan []string) error {
	for {
		news, a, err := ask(ctx, q)
		if err != nil {
			if err = broken(err, q); err == nil {
				err = errAnew
			}
			return err
		}
		select {
		case <-tell:
		default:
		}
		tell <- news // nobody else sends
		if q = (query{index: a.index()}); !retry.Pause(ctx, allPace) {
			return ctx.Err()
		}
	}
}
