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

// Signals gives a context that ends at the first SIGINT or SIGTERM, with a cause from which Main tells the exit code.
// The second one ends the process at once, as it does by default. stop frees the handler.
func Signals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
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
			signal.Stop(got)
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
