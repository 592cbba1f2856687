package dns

import (
	"errors"
	"fmt"
	"io"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
	"github.com/cb02dfca/micro/pkg/status"
)

// errPrerequisite: the zone is not as an update wants it to be. Somebody changed it since it was looked at.
var errPrerequisite = errors.New("the records changed")

func isPrerequisite(err error) bool { return errors.Is(err, errPrerequisite) }

// isRefusal reports whether an error says that the nameserver is there, and does not want what it was asked for.
func isRefusal(err error) bool {
	var e *status.Error
	return errors.As(err, &e)
}

// judge gives what is wrong with an answer. A name that does not exist is an answer too.
func (r *Registry) judge(a *wire.Msg) error {
	update := a.Opcode == wire.OpcodeUpdate
	switch a.Rcode {
	case wire.RcodeSuccess:
		return nil
	case wire.RcodeNameError:
		if !update {
			return nil
		}
		return errPrerequisite
	case wire.RcodeYXDomain, wire.RcodeYXRrset, wire.RcodeNXRrset:
		return errPrerequisite
	case wire.RcodeNotAuth:
		return r.refuse(r.notAuth(a.IsTsig()))
	case wire.RcodeRefused:
		if !update {
			return r.refuse(status.New(status.PermissionDenied, "it does not answer questions about %s%s (REFUSED)", r.zone, r.withKey()))
		}
		return r.refuse(status.New(status.PermissionDenied, "it does not let %s be updated%s (REFUSED): its allow-update, or update-policy, has to", r.zone, r.withKey()))
	case wire.RcodeNotImplemented:
		return r.refuse(status.New(status.Unimplemented, "it takes no dynamic updates (NOTIMP)"))
	case wire.RcodeNotZone:
		return r.refuse(status.New(status.FailedPrecondition, "%s is not in its zone (NOTZONE)", r.zone))
	case wire.RcodeServerFailure:
		if update {
			return errors.New("it failed (SERVFAIL): its log says why; a name may have reached max-records-per-type")
		}
	}
	return fmt.Errorf("it failed (%s)", wire.RcodeToString[a.Rcode])
}

// notAuth tells what NOTAUTH is about.
func (r *Registry) notAuth(t *wire.TSIG) *status.Error {
	code := uint16(0)
	if t != nil {
		code = t.Error
	}
	switch code {
	case wire.RcodeBadKey:
		return status.New(status.Unauthenticated, "it does not know the key %q, or not with %s (BADKEY)", r.o.Key.Name, r.o.Key.Algorithm)
	case wire.RcodeBadSig:
		return status.New(status.Unauthenticated, "the key %q is not the one that it has (BADSIG)", r.o.Key.Name)
	case wire.RcodeBadTime:
		return status.New(status.Unauthenticated, "its clock and this machine's are more than %d s apart (BADTIME)", fudge)
	}
	return status.New(status.PermissionDenied, "it is not the primary of %s (NOTAUTH)", r.zone)
}

func (r *Registry) withKey() string {
	if r.o.Key.Name == "" {
		return " without a key"
	}
	return fmt.Sprintf(" with the key %q", r.o.Key.Name)
}

// refuse names the nameserver.
func (r *Registry) refuse(e *status.Error) error {
	return fmt.Errorf("registry: dns %s: %w", r.host, e)
}

// unavailable says that the nameserver could not answer, and why.
func (r *Registry) unavailable(cause error) error {
	return fmt.Errorf("%w: %s is not answering: %w", registry.ErrUnavailable, r.host, cause)
}

// reason gives why something on a connection failed.
func reason(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it closed the connection")
	}
	return remote.Reason(err)
}
