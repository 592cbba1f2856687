package remote

import (
	"errors"
	"net"
	"net/url"
	"os"
)

// Reason takes the wrappers off an error of net/http that repeat the address: "connection refused" is left.
func Reason(err error) error {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "dial" || op.Op == "read" || op.Op == "write") {
		err = op.Err
		var call *os.SyscallError
		if errors.As(err, &call) {
			err = call.Err
		}
		if op.Op == "dial" {
			err = unreached{err}
		}
	}
	return err
}

// unreached is the reason for which no connection could be made.
type unreached struct{ error }

func (u unreached) Unwrap() error { return u.error }

// Unreached reports whether an error that wraps one of Reason says that no connection could be made.
func Unreached(err error) bool { return errors.As(err, new(unreached)) }
