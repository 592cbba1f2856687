package commands

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

func (e signalError) Error() string { return e.signal.String() }

func (e signalError) exit() exitCode {
	if e.signal == syscall.SIGTERM {
		return exitTerminated
	}
	return exitInterrupted
}

// doubled is the time within which a second signal is the first one's double: timeout(1), and shells that signal a group
// and its leader, send it twice.
const doubled = 20 * time.Millisecond

// lastActs are what is to be done before a second signal ends the process.
type lastActs struct {
	mu   sync.Mutex
	acts map[*func()]struct{}
}

type lastActsKey struct{}

// beforeLeaving has act run before a second signal ends the process, until forget is called: for what would live on
// without us. It does nothing with a context that is not of Signals. act must not block.
func beforeLeaving(ctx context.Context, act func()) (forget func()) {
	last, ok := ctx.Value(lastActsKey{}).(*lastActs)
	if !ok {
		return func() {}
	}
	last.mu.Lock()
	defer last.mu.Unlock()
	last.acts[&act] = struct{}{}
	return func() {
		last.mu.Lock()
		defer last.mu.Unlock()
		delete(last.acts, &act)
	}
}

func (l *lastActs) run() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for act := range l.acts {
		(*act)()
	}
}

// Signals gives a context that ends at the first SIGINT or SIGTERM, with a cause from which Main tells the exit code.
// The second one ends the process at once, as it does by default, when what beforeLeaving was given has been done. stop
// frees the handler.
func Signals(parent context.Context) (ctx context.Context, stop func()) {
	last := &lastActs{acts: make(map[*func()]struct{})}
	ctx, cancel := context.WithCancelCause(context.WithValue(parent, lastActsKey{}, last))
	got := make(chan os.Signal, 1)
	signal.Notify(got, os.Interrupt, syscall.SIGTERM)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-got:
			cancel(signalError{s})
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(doubled):
		case <-stopped:
			return
		}
		select {
		case <-got: // the double
		default:
		}
		select {
		case s := <-got:
			last.run()
			signal.Stop(got)
			leave(s)
		case <-stopped:
		}
	}()
	var once sync.Once
	return ctx, func() {
		once.Do(func() { close(stopped) })
		signal.Stop(got)
		cancel(nil)
		<-done
	}
}
