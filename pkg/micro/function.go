package micro

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// Function is a service that serves one call, stream or message, and then leaves. Debug.* does not count. A second call
// that arrives meanwhile is refused unrun, so that its caller tries another node. Make it with [NewFunction].
type Function struct {
	*Service
	taken atomic.Bool
	over  chan struct{} // closed when the one call has returned
	once  sync.Once
}

// NewFunction makes the function name.
func NewFunction(name string, opts ...Option) (*Function, error) {
	f := &Function{over: make(chan struct{})}
	// The first middleware is the outermost: whatever the others do counts as part of the one call.
	opts = append([]Option{ServerOptions(server.WithMiddleware(f.serveOnce))}, opts...)
	s, err := New(name, opts...)
	if err != nil {
		return nil, err
	}
	f.Service = s
	return f, nil
}

func (f *Function) serveOnce(next server.Handler) server.Handler {
	return func(ctx context.Context, c *server.Call) error {
		if strings.HasPrefix(c.Endpoint(), "Debug.") && c.Topic() == "" {
			return next(ctx, c)
		}
		if f.taken.Swap(true) {
			return status.Refuse(status.Unavailable, "the function has served its one call")
		}
		f.Server().Stop() // from here on the server refuses by itself
		defer f.once.Do(func() { close(f.over) })
		return next(ctx, c)
	}
}

// Run is the function's life: as a service's, and it ends after the one call. It returns nil when that was answered,
// whatever the answer was.
func (f *Function) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-f.over:
			cancel()
		case <-done:
		}
	})
	err := f.Service.Run(ctx)
	close(done)
	watch.Wait()
	return err
}
