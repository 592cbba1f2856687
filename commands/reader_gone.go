package commands

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// errReaderGone is the cause of a context that ends because nobody reads standard output any more, as after | head -1.
var errReaderGone = errors.New("nobody reads standard output")

// readerPause is the time between two looks at standard output.
const readerPause = 200 * time.Millisecond

// whileRead gives a context that ends when the reader of standard output has gone: a command that waits for what may
// never come would else stay until then. Until stop, a write to a closed pipe is an error and does not end the process,
// so that the command can take back what it has registered.
func (in *invocation) whileRead(ctx context.Context) (_ context.Context, stop func()) {
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancelCause(ctx)
	f, ok := in.Stdout.(*os.File)
	if !ok {
		return ctx, func() { cancel(nil); signal.Reset(syscall.SIGPIPE) }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(readerPause)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if readerGone(f) {
					cancel(errReaderGone)
				}
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
		signal.Reset(syscall.SIGPIPE)
	}
}

// unlessUnread gives err, unless it came of there being nobody who reads standard output any more: that is a good end.
func unlessUnread(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errReaderGone) || brokenPipe(err) {
		return nil
	}
	return err
}

// brokenPipe reports whether err says that nobody reads standard output. On Windows it is ERROR_BROKEN_PIPE or
// ERROR_NO_DATA.
func brokenPipe(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, syscall.EPIPE) || runtime.GOOS == "windows" && errors.As(err, &errno) && (errno == 109 || errno == 232)
}
