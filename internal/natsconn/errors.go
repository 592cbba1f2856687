package natsconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/status"
)

// Error gives an error of nats.go, or of the way to a server, in the backend's words: a *status.Error where NATS refuses, Words.Closed after
// Close, else one that wraps Words.Unavailable. nil stays nil, and an error that went through it already stays what it is.
func (c *Conn) Error(err error) error {
	w := c.o.Words
	switch {
	case err == nil || errors.Is(err, w.Unavailable) || errors.Is(err, w.Closed) || errors.As(err, new(*status.Error)):
		return err
	case c.life.Err() != nil:
		return w.Closed
	}
	var e *status.Error
	switch {
	case isLogin(err):
		e = status.Wrap(err, status.Unauthenticated, "%s", c.login(err))
	case errors.Is(err, nats.ErrNkeysNotSupported):
		e = status.Wrap(err, status.Unauthenticated, "it takes no JWT, which the credentials file holds")
	case errors.Is(err, nats.ErrPermissionViolation):
		e = status.Wrap(err, status.PermissionDenied, "%s", c.forbidden(err))
	case errors.Is(err, nats.ErrMaxConnectionsExceeded) || errors.Is(err, nats.ErrMaxAccountConnectionsExceeded) || errors.Is(err, nats.ErrMaxSubscriptionsExceeded):
		e = status.Wrap(err, status.ResourceExhausted, "%s", text(err))
	case errors.Is(err, nats.ErrMaxPayload):
		e = status.Wrap(err, status.TooLarge, "%s", text(err))
	default:
		return fmt.Errorf("%w: %s is not answering: %w", w.Unavailable, c.hosts, Reason(err))
	}
	return fmt.Errorf("%s: nats %s: %w", w.Interface, c.hosts, e)
}

// isLogin reports whether an error says that NATS does not take the login.
func isLogin(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired)
}

func (c *Conn) who() string {
	if c.o.Username != "" {
		return fmt.Sprintf("user %q: ", c.o.Username)
	}
	return ""
}

// forbidden tells what the user may not: the server says `Permissions Violation for Publish to "orders"`.
func (c *Conn) forbidden(err error) string {
	_, what, ok := strings.Cut(err.Error(), "Permissions Violation for ")
	if !ok {
		return c.who() + text(err)
	}
	what = strings.Replace(strings.Replace(what, "Publish to", "publish to", 1), "Subscription to", "subscribe to", 1)
	return fmt.Sprintf("%sit may not %s: the server's configuration gives permissions", c.who(), what)
}

// login tells what is wrong with the login, without telling the login.
func (c *Conn) login(err error) string {
	why := map[error]string{nats.ErrAuthExpired: "has expired", nats.ErrAuthRevoked: "was revoked", nats.ErrAccountAuthExpired: "has expired, for the whole account"}
	for kind, text := range why {
		if errors.Is(err, kind) {
			return c.who() + "the login " + text
		}
	}
	switch {
	case c.o.Username != "":
		return c.who() + "wrong name or password"
	case c.o.Token != "":
		return "wrong token"
	case c.o.CredentialsFile != "":
		return "the user of " + c.o.CredentialsFile + " is not let in"
	}
	return fmt.Sprintf("it asks for a login: set %s and %s, or %s, or credentials-file or token-file", EnvUsername, EnvPassword, EnvToken)
}

// Reason gives why there is no connection, without what net puts around it: the servers' addresses are said already.
func Reason(err error) error {
	for _, known := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EHOSTUNREACH, syscall.ENETUNREACH, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return known
		}
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("no such host %q", dns.Name)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return errors.New("it does not speak TLS")
	case errors.Is(err, nats.ErrTimeout) || errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.Is(err, errBroke):
		return errBroke
	case errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrConnectionClosed):
		return errors.New("the connection is lost")
	}
	var dial dialError
	if errors.As(err, &dial) {
		err = dial.cause
	}
	return errors.New(text(err))
}

func text(err error) string { return strings.TrimPrefix(err.Error(), "nats: ") }
