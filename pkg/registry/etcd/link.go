package etcd

import (
	"context"
	"sync"

	"google.golang.org/grpc/connectivity"
)

// link follows the connection to etcd. Its client resumes streams by itself and tells nobody; but a watch has to say that
// what it knows may be old.
type link struct {
	r    *Registry
	done chan struct{} // closed when follow's goroutine has ended

	mu   sync.Mutex
	up   context.Context // ends when no member can be reached
	drop context.CancelFunc
}

// follow starts a link, which ends with the client.
func follow(r *Registry) *link {
	l := &link{r: r, done: make(chan struct{})}
	l.up, l.drop = context.WithCancel(context.Background())
	go func() {
		defer close(l.done)
		conn := r.client.ActiveConnection()
		for state := conn.GetState(); conn.WaitForStateChange(r.client.Ctx(), state); {
			state = conn.GetState()
			l.see(state)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.drop()
	}()
	return l
}

func (l *link) wait() { <-l.done }

// see takes in a state of the connection.
func (l *link) see(state connectivity.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case state == connectivity.TransientFailure && l.up.Err() == nil:
		l.drop()
		l.r.o.Logger.Warn("etcd is away", "etcd", l.r.host)
	case state == connectivity.Ready && l.up.Err() != nil:
		l.up, l.drop = context.WithCancel(context.Background())
		l.r.o.Logger.Info("etcd is back", "etcd", l.r.host)
	}
}

// while gives a context that ends when the connection is lost. It is asked for after an answer has come.
func (l *link) while() context.Context {
	l.see(l.r.client.ActiveConnection().GetState())
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}
