package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

// errTime is the reason of a server that says nothing.
var errTime = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)

// parallel is how many requests of one listing are under way at one time: ZooKeeper answers them in order, on one connection.
const parallel = 64

// ask makes a request that changes nothing, within Timeout, and once more on the next connection if that breaks. Its error is
// one of the library's that say something of the node, or is in this package's terms. request runs on after ask returned, if
// ctx ended: it writes to nothing but what it returns.
func ask[T any](ctx context.Context, l *link, request func(*epoch) (T, error)) (T, error) {
	var none T
	for {
		e, err := within(ctx, l, l.ready)
		if err != nil {
			return none, err
		}
		v, err := askOn(ctx, l, e, request)
		if !broken(err) {
			return v, err
		}
		e.lose(ctx)
	}
}

// askOn makes a request on one connection, as ask says. The error may be that the connection broke.
func askOn[T any](ctx context.Context, l *link, e *epoch, request func(*epoch) (T, error)) (T, error) {
	return within(ctx, l, func(ctx context.Context) (T, error) { return on(ctx, l, e, request) })
}

// within gives what do gives within Timeout.
func within[T any](ctx context.Context, l *link, do func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, l.r.o.Timeout)
	defer cancel()
	v, err := do(bounded)
	return v, l.r.late(ctx, err)
}

// on makes a request on one connection, until ctx ends.
func on[T any](ctx context.Context, l *link, e *epoch, request func(*epoch) (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var none T
	if err := l.begin(); err != nil {
		return none, err
	}
	answers := make(chan answer, 1)
	go func() {
		defer l.busy.Done()
		v, err := request(e)
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-e.down:
		return none, zk.ErrConnectionClosed
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			e.wire.breakIfSilent(l.r.o.Timeout)
		}
		return none, ctx.Err()
	}
}

// late gives the error of a request whose own time is over, or that ended with the registry. ctx is the caller's.
func (r *Registry) late(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, registry.ErrUnavailable), !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded):
		return err
	case r.life.Err() != nil:
		return registry.ErrClosed
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	}
	return r.unavailable(errTime)
}

// tell makes a request that may change something, and waits until it is known what became of it: until it is answered, or its
// connection is lost. A server that says nothing for longer than Timeout loses it.
func tell[T any](l *link, e *epoch, request func(*zk.Conn) (T, error)) (T, error) {
	if err := l.begin(); err != nil {
		var none T
		return none, err
	}
	defer l.busy.Done()
	watchdog := time.AfterFunc(l.r.o.Timeout, func() { e.wire.breakIfSilent(l.r.o.Timeout) })
	defer watchdog.Stop()
	return request(e.conn)
}

// broken reports whether an error says that the connection was lost before the answer came, or the session.
func broken(err error) bool {
	for _, e := range []error{zk.ErrConnectionClosed, zk.ErrNoServer, zk.ErrClosing, zk.ErrSessionExpired, zk.ErrSessionMoved, errWrite} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// said gives an error of ZooKeeper in this package's terms.
func (r *Registry) said(err error) error {
	var e *status.Error
	switch {
	case err == nil, errors.As(err, &e), errors.Is(err, registry.ErrUnavailable), errors.Is(err, registry.ErrClosed),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, zk.ErrNoAuth) && r.o.Username == "", unknown(err, noLogin):
		e = status.Wrap(err, status.Unauthenticated, "it asks for a user: set %s and %s, or credentials-file", EnvUsername, EnvPassword)
	case errors.Is(err, zk.ErrNoAuth):
		e = status.Wrap(err, status.PermissionDenied, "user %q may not read and write below %s: the password is wrong, or an ACL does not name the user", r.o.Username, r.o.Prefix)
	case errors.Is(err, zk.ErrAuthFailed):
		e = status.Wrap(err, status.Unauthenticated, "user %q: wrong name or password", r.o.Username)
	case unknown(err, overQuota):
		e = status.Wrap(err, status.ResourceExhausted, "a quota is reached")
	case broken(err):
		return r.unavailable(errors.New("it closed the connection"))
	default:
		e = status.Wrap(err, status.Internal, "%s", strings.TrimPrefix(err.Error(), "zk: "))
	}
	return fmt.Errorf("registry: ZooKeeper %s: %w", r.host, e)
}

// Codes of ZooKeeper that the library has no error for.
const (
	noLogin   = -124 // the server wants one, whatever the node
	overQuota = -125
)

func unknown(err error, code int) bool { return err.Error() == fmt.Sprintf("unknown error: %d", code) }

// refused reports whether an error says that ZooKeeper is there, and does not want what it was asked for.
func refused(err error) bool {
	var e *status.Error
	return errors.As(err, &e)
}

// unavailable says that ZooKeeper could not answer, and why.
func (r *Registry) unavailable(cause error) error {
	return fmt.Errorf("%w: %s is not answering: %w", registry.ErrUnavailable, r.host, cause)
}

// reason gives why a connection could not be made, without what net puts around it, of which the address is said already.
func reason(err error) error {
	var number syscall.Errno
	var op *net.OpError
	switch {
	case errors.As(err, &number):
		return number
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &op) && op.Timeout():
		return errTime
	case errors.As(err, &op):
		return op.Err
	}
	return err
}

// each calls do for the numbers below n, several at a time, and gives the first error.
func each(n int, do func(int) error) error {
	var group sync.WaitGroup
	errs := make([]error, n)
	free := make(chan struct{}, parallel)
	for i := range n {
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			errs[i] = do(i)
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
