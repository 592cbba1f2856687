package amqpconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/pkg/status"
)

// ErrClosed: the Link was closed by this side.
var ErrClosed = errors.New("rabbitmq: closed")

// Error is why RabbitMQ could not be asked, or what it answered. It wraps a *status.Error where RabbitMQ is there, and refuses
// what it was asked for: see Refused.
type Error struct {
	Host  string // the nodes
	Cause error
}

// Error names the server.
func (e *Error) Error() string {
	if Refused(e.Cause) {
		return fmt.Sprintf("rabbitmq %s: %v", e.Host, e.Cause)
	}
	return fmt.Sprintf("rabbitmq %s is not answering: %v", e.Host, e.Cause)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Refused reports whether an error says that RabbitMQ is there, and does not do what it was asked for.
func Refused(err error) bool {
	var e *status.Error
	return errors.As(err, &e)
}

// Missing reports whether an error says that there is no such queue or exchange.
func Missing(err error) bool { return code(err) == amqp.NotFound }

// Differs reports whether an error says that a queue or an exchange of the name is there, with other properties.
func Differs(err error) bool { return code(err) == amqp.PreconditionFailed }

// Taken reports whether an error says that another has the queue for itself.
func Taken(err error) bool { return code(err) == amqp.ResourceLocked }

// Forbidden reports whether an error says that the user may not do that.
func Forbidden(err error) bool { return code(err) == amqp.AccessRefused }

// code gives the reply code of RabbitMQ that an error holds, 0 for none.
func code(err error) int {
	var e *amqp.Error
	if errors.As(err, &e) && e.Server {
		return e.Code
	}
	return 0
}

// Explain gives an error of the client library, or of the way to RabbitMQ, in the terms of this package. One that is so
// already, or is a context's, it leaves as it is.
func (l *Link) Explain(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) || errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) {
		return err
	}
	var e *amqp.Error
	if !errors.As(err, &e) {
		return &Error{Host: l.host, Cause: reason(err)}
	}
	if e == amqp.ErrCredentials { // RabbitMQ hangs up, and says nothing to those who may not come in
		return &Error{Host: l.host, Cause: status.Wrap(e, status.Unauthenticated, "user %q: wrong name or password%s", l.o.Username, l.hint())}
	}
	if !e.Server {
		return &Error{Host: l.host, Cause: broken(e)}
	}
	var cause error
	switch text := sentence(e.Reason); {
	case e.Code == amqp.ConnectionForced: // it is being stopped
		cause = errors.New(text)
	case e.Code == amqp.AccessRefused && strings.Contains(text, "login refused"), e.Code == amqp.AccessRefused && strings.Contains(text, "Login was refused"):
		cause = status.Wrap(e, status.Unauthenticated, "user %q: wrong name or password%s", l.o.Username, l.hint())
	case e.Code == amqp.AccessRefused:
		cause = status.Wrap(e, status.PermissionDenied, "user %q: %s", l.o.Username, text)
	case e.Code == amqp.NotAllowed && strings.Contains(text, "not found"):
		cause = status.Wrap(e, status.NotFound, "there is no virtual host %q", l.o.VHost)
	case e.Code == amqp.NotAllowed && strings.Contains(text, "access to vhost"):
		cause = status.Wrap(e, status.PermissionDenied, "user %q may not use the virtual host %q: grant it permissions there", l.o.Username, l.o.VHost)
	case e.Code == amqp.NotFound:
		cause = status.Wrap(e, status.NotFound, "%s", text)
	case e.Code == amqp.ResourceLocked, e.Code == amqp.PreconditionFailed:
		cause = status.Wrap(e, status.AlreadyExists, "%s", text)
	case e.Code == amqp.NotAllowed && strings.Contains(text, "limit"), e.Code == amqp.ResourceError:
		cause = status.Wrap(e, status.ResourceExhausted, "%s", text)
	default:
		cause = status.Wrap(e, status.Internal, "%s", text)
	}
	return &Error{Host: l.host, Cause: cause}
}

// hint tells who logs in as guest that this works on RabbitMQ's own machine alone.
func (l *Link) hint() string {
	if l.o.Username != guest {
		return ""
	}
	return fmt.Sprintf("; set %s and %s, or credentials-file: guest may come from its own machine alone", EnvUsername, EnvPassword)
}

// broken gives the reason of an error that the client library made itself: the connection's end, mostly.
func broken(e *amqp.Error) error {
	switch {
	case e == amqp.ErrVhost: // it says so wherever the connection ends there
		return errors.New("it closed the connection in the login")
	case e == amqp.ErrClosed:
		return errors.New("the connection is closed")
	case e == amqp.ErrChannelMax:
		return errors.New("the connection has as many channels as it may")
	case strings.Contains(e.Reason, "EOF"), strings.Contains(e.Reason, "use of closed network connection"), strings.Contains(e.Reason, "connection reset"), strings.Contains(e.Reason, "broken pipe"):
		return errors.New("the connection broke")
	case strings.Contains(e.Reason, "timeout"):
		return errors.New("it has been silent for too long")
	}
	return errors.New(sentence(e.Reason))
}

// reason gives an error of the net without the address, which is told already.
func reason(err error) error {
	for _, known := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		if errors.Is(err, known) {
			return known
		}
	}
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.As(err, &op) && op.Err != nil:
		return op.Err
	}
	return err
}

// sentence gives the text of a reply without the name of its code, and without the class and the method that it is about.
func sentence(text string) string {
	if name, rest, ok := strings.Cut(text, " - "); ok && name == strings.ToUpper(name) {
		text = rest
	}
	return strings.TrimSpace(strings.ReplaceAll(text, "\n", " "))
}
