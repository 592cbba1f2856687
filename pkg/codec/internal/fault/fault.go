// Package fault gives the errors that answers of RPC formats tell of.
package fault

import "github.com/cb02dfca/micro/pkg/status"

// sender names the formats in errors that no service gave.
const sender = "micro.codec"

// Of gives the form of err that a caller gets, with a sender.
func Of(err error) *status.Error {
	return status.FromError(err).From(sender)
}
