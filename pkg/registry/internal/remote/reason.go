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
	}
	return err
}
