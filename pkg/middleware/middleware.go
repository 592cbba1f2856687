// Package middleware holds ready-made wrappers for handlers and calls. Applications import what they want of it; the
// framework imports none.
package middleware

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// Recover turns a panic into an error of that call alone, as the server does by itself, and tells report first: the
// place for a counter, or for a service that of all things logs elsewhere. report may be nil; it may be called concurrently.
func Recover(report func(ctx context.Context, c *server.Call, panicked any, stack []byte)) server.Middleware {
	return func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) (err error) {
			defer func() {
				if p := recover(); p != nil {
					if report != nil {
						report(ctx, c, p, debug.Stack())
					}
					err = status.Wrap(fmt.Errorf("panic: %v", p), status.Internal, "the handler panicked")
				}
			}()
			return next(ctx, c)
		}
	}
}

// Log writes a line for each call when it has ended: the endpoint, the caller, the time it took, and the error. Calls
// that succeeded are logged at level Debug, refusals of the caller's input at Info, and failures at Error.
func Log(l *slog.Logger) server.Middleware {
	return func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			start := time.Now()
			err := next(ctx, c)
			level := levelOf(err)
			if !l.Enabled(ctx, level) {
				return err
			}
			attrs := []slog.Attr{
				slog.String("service", c.Service()), slog.String("endpoint", c.Endpoint()),
				slog.String("remote", c.Remote()), slog.Duration("took", time.Since(start)),
			}
			if err != nil {
				attrs = append(attrs, slog.Int("code", int(status.CodeOf(err))), slog.Any("error", err))
			}
			l.LogAttrs(ctx, level, "served", attrs...)
			return err
		}
	}
}

// LogCalls writes a line for each call that a client made, as Log does for those that a server served.
func LogCalls(l *slog.Logger) client.Middleware {
	return func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, req *client.Request) (*client.Response, error) {
			start := time.Now()
			rsp, err := next(ctx, req)
			level := levelOf(err)
			if !l.Enabled(ctx, level) {
				return rsp, err
			}
			attrs := []slog.Attr{
				slog.String("service", req.Service), slog.String("endpoint", req.Endpoint), slog.Duration("took", time.Since(start)),
			}
			if rsp != nil {
				attrs = append(attrs, slog.String("node", rsp.Node.ID))
			}
			if err != nil {
				attrs = append(attrs, slog.Int("code", int(status.CodeOf(err))), slog.Any("error", err))
			}
			l.LogAttrs(ctx, level, "called", attrs...)
			return rsp, err
		}
	}
}

func levelOf(err error) slog.Level {
	switch code := status.CodeOf(err); {
	case err == nil:
		return slog.LevelDebug
	case code < 500:
		return slog.LevelInfo
	}
	return slog.LevelError
}

// Timeout bounds handlers: the context of each ends after d, or at its caller's deadline where that is sooner. It does
// not stop a handler that does not look at its context.
func Timeout(d time.Duration) server.Middleware {
	return func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			ctx, cancel := context.WithTimeoutCause(ctx, d, status.New(status.HandlerTimeout, "%s took over %v", c.Endpoint(), d))
			defer cancel()
			err := next(ctx, c)
			if cause, ok := context.Cause(ctx).(*status.Error); ok && err != nil && status.CodeOf(err) == status.DeadlineExceeded {
				return cause
			}
			return err
		}
	}
}
