package nsq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/status"
)

// refusal is an error that nsqd answers: a code such as E_BAD_TOPIC, and a text.
type refusal struct{ code, text string }

func (r *refusal) Error() string { return strings.TrimSpace(r.code + " " + r.text) }

func newRefusal(data []byte) *refusal {
	code, text, _ := strings.Cut(string(data), " ")
	return &refusal{code, text}
}

// passing reports whether another nsqd may take what this one refused: it is stopping, or cannot write.
func (r *refusal) passing() bool {
	return r.code == "E_PUB_FAILED" || r.code == "E_MPUB_FAILED" || r.code == "E_SUB_FAILED"
}

// Errors of a way to an nsqd. errNotRun is joined to what says that nsqd has not seen a command.
var (
	errNotRun   = errors.New("it was not sent")
	errBroke    = errors.New("the connection broke")
	errNoTLS    = errors.New("it does not speak TLS: it has no --tls-cert")
	errNoAnswer = errors.New("no answer in time")
)

// wrap gives an error of addr in the broker's terms: a *status.Error where NSQ refuses, broker.ErrInvalid for what it cannot carry, else
// one that wraps broker.ErrUnavailable.
func (b *Broker) wrap(addr string, err error) error {
	if err == nil || errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrInvalid) || errors.Is(err, broker.ErrClosed) || errors.As(err, new(*status.Error)) {
		return err
	}
	var r *refusal
	if !errors.As(err, &r) {
		return fmt.Errorf("%w: nsqd %s is not answering: %w", broker.ErrUnavailable, addr, reason(err))
	}
	var e *status.Error
	switch {
	case r.code == "E_AUTH_FAILED" || r.code == "E_AUTH_FIRST" || r.code == "E_AUTH_ERROR":
		e = status.Wrap(r, status.Unauthenticated, "%s", b.login())
	case r.code == "E_UNAUTHORIZED" && strings.Contains(r.text, "no authorizations"):
		e = status.Wrap(r, status.Unauthenticated, "%s", b.login())
	case r.code == "E_UNAUTHORIZED":
		e = status.Wrap(r, status.PermissionDenied, "the secret does not permit it: %s", r.text)
	case r.code == "E_INVALID" && strings.Contains(r.text, "TLS required"):
		e = status.Wrap(r, status.FailedPrecondition, "it wants TLS: add tls=true or ca-file")
	case r.code == "E_BAD_MESSAGE" || r.code == "E_BAD_BODY" || r.code == "E_BAD_TOPIC" || r.code == "E_BAD_CHANNEL":
		return fmt.Errorf("%w: nsqd %s: %w", broker.ErrInvalid, addr, r)
	case r.passing():
		return fmt.Errorf("%w: nsqd %s: %w", broker.ErrUnavailable, addr, r)
	default:
		e = status.Wrap(r, status.FailedPrecondition, "%s", r.Error())
	}
	return fmt.Errorf("broker: nsqd %s: %w", addr, e)
}

// login tells what is wrong with the secret, without telling it.
func (b *Broker) login() string {
	if b.o.Secret != "" {
		return "the secret is not let in"
	}
	return "it asks for a secret: set " + EnvSecret + ", or token-file"
}

// reason gives why there is no connection, without what net puts around it.
func reason(err error) error {
	for _, known := range []error{errBroke, errNoTLS, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		if errors.Is(err, known) {
			return known
		}
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("no such host %q", dns.Name)
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		return errNoAnswer
	case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
		return errBroke
	}
	return err
}
