package googlepubsub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/status"
)

// codeOf gives gRPC's code of an error, also where the client has wrapped it.
func codeOf(err error) codes.Code {
	if s, ok := grpcstatus.FromError(err); ok {
		return s.Code()
	}
	return codes.Unknown
}

// passing reports whether what failed may be well in a moment.
func passing(err error) bool {
	switch codeOf(err) {
	case codes.Unavailable, codes.Aborted, codes.Internal, codes.DeadlineExceeded, codes.ResourceExhausted:
		return true
	}
	return false
}

// wrap gives an error of Pub/Sub in the broker's terms: a *status.Error where it refuses, broker.ErrInvalid for what it cannot carry, else one
// that wraps broker.ErrUnavailable.
func (b *Broker) wrap(err error) error {
	if err == nil || errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrInvalid) || errors.Is(err, broker.ErrClosed) || errors.As(err, new(*status.Error)) {
		return err
	}
	text := err.Error()
	if s, ok := grpcstatus.FromError(err); ok {
		text = s.Message()
	}
	text, _, _ = strings.Cut(text, "\n")
	var code status.Code
	switch codeOf(err) {
	case codes.Unauthenticated:
		code, text = status.Unauthenticated, "the credentials of "+b.credentials()+" are not let in: "+text
	case codes.PermissionDenied:
		code = status.PermissionDenied
	case codes.InvalidArgument, codes.OutOfRange:
		return fmt.Errorf("%w: Pub/Sub of %s: %s", broker.ErrInvalid, b.o.Project, text)
	case codes.NotFound, codes.FailedPrecondition, codes.Unimplemented:
		code = status.FailedPrecondition
	case codes.ResourceExhausted:
		code = status.ResourceExhausted
	default:
		reason := errors.New(text)
		switch {
		case errors.Is(err, context.DeadlineExceeded) || codeOf(err) == codes.DeadlineExceeded:
			reason = errors.New("no answer in time")
		case strings.Contains(text, syscall.ECONNREFUSED.Error()):
			reason = syscall.ECONNREFUSED // without what gRPC puts around it
		}
		return fmt.Errorf("%w: Pub/Sub of %s is not answering: %w", broker.ErrUnavailable, b.o.Project, reason)
	}
	return fmt.Errorf("broker: Pub/Sub of %s: %w", b.o.Project, status.Wrap(err, code, "%s", text))
}

// noClient is the error of a client that cannot be made: its credentials lack, or cannot be read.
func (b *Broker) noClient(err error) error {
	if err := errors.Unwrap(err); err != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return err
	}
	if b.o.CredentialsFile == "" && strings.Contains(err.Error(), "could not find default credentials") {
		return fmt.Errorf("broker: Pub/Sub of %s: %w", b.o.Project, status.Wrap(err, status.Unauthenticated,
			"there are no credentials: set %s, or credentials-file, or log in by gcloud auth application-default login", EnvCredentials))
	}
	// What the error says of the content of a file is left out.
	return fmt.Errorf("broker: Pub/Sub of %s: %w", b.o.Project, status.New(status.Unauthenticated, "no credentials can be read from %s", b.credentials()))
}

// credentials names where they are from.
func (b *Broker) credentials() string {
	if b.o.CredentialsFile != "" {
		return b.o.CredentialsFile
	}
	return EnvCredentials + ", or this machine's own,"
}
