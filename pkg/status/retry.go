package status

import (
	"errors"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// RetryDelay gives the time after which the sender of err asks to be called again, zero and more: that of the google.rpc.RetryInfo
// among the details of the first *Error in err's chain. It is read without that message's package, which few programs have.
func RetryDelay(err error) (delay time.Duration, ok bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return 0, false
	}
	for _, d := range e.Details {
		if d.Name() == "google.rpc.RetryInfo" {
			return readDelay(d.Value)
		}
	}
	return 0, false
}

// The fields of google.rpc.RetryInfo and of google.protobuf.Duration.
const (
	fieldRetryDelay = 1 // Duration
	fieldSeconds    = 1
	fieldNanos      = 2
)

// readDelay reads a RetryInfo. One without a delay asks for none.
func readDelay(message []byte) (time.Duration, bool) {
	var seconds, nanos int64
	whole := eachField(message, func(field protowire.Number, _ uint64, delay []byte) bool {
		return field != fieldRetryDelay || eachField(delay, func(field protowire.Number, n uint64, _ []byte) bool {
			switch field {
			case fieldSeconds:
				seconds = int64(n)
			case fieldNanos:
				nanos = int64(int32(n))
			}
			return true
		})
	})
	if !whole || seconds < 0 || seconds >= math.MaxInt64/int64(time.Second) || nanos < 0 || nanos >= int64(time.Second) {
		return 0, false
	}
	return time.Duration(seconds)*time.Second + time.Duration(nanos), true
}

// eachField yields the fields of an encoded message: a number where it is a varint, and bytes where it has them. It reports whether
// the message is whole, and yield always reported true.
func eachField(message []byte, yield func(field protowire.Number, number uint64, value []byte) bool) bool {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return false
		}
		message = message[n:]
		size := protowire.ConsumeFieldValue(field, kind, message)
		if size < 0 {
			return false
		}
		var number uint64
		var value []byte
		switch kind {
		case protowire.VarintType:
			number, _ = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			value, _ = protowire.ConsumeBytes(message)
		}
		if !yield(field, number, value) {
			return false
		}
		message = message[size:]
	}
	return true
}
