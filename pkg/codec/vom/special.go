package vom

import (
	"fmt"
	"math"
	"time"
)

// The types that Go types of the standard library go as. The names are VDL's.
type (
	wireTime struct {
		Seconds int64 // since the first of January of the year 1
		Nanos   int32
	}
	wireDuration struct {
		Seconds int64
		Nanos   int32 // of the same sign
	}
	wireComplex64  struct{ Real, Imag float32 }
	wireComplex128 struct{ Real, Imag float64 }
	wireError      struct {
		Id        string
		RetryCode RetryCode
		Msg       string
		ParamList []any
	}
)

func (wireTime) VDLReflect(struct {
	Name string `vdl:"time.Time"`
}) {
}

func (wireDuration) VDLReflect(struct {
	Name string `vdl:"time.Duration"`
}) {
}

func (wireComplex64) VDLReflect(struct {
	Name string `vdl:"math.Complex64"`
}) {
}

func (wireComplex128) VDLReflect(struct {
	Name string `vdl:"math.Complex128"`
}) {
}

func (wireError) VDLReflect(struct {
	Name string `vdl:"v.io/v23/vdl.WireError"`
}) {
}

// yearOne is the first of January of the year 1 in seconds of Unix time.
const yearOne = -62135596800

func toWireTime(t time.Time) wireTime {
	return wireTime{t.Unix() - yearOne, int32(t.Nanosecond())}
}

func (w wireTime) time() time.Time { return time.Unix(w.Seconds+yearOne, int64(w.Nanos)).UTC() }

func toWireDuration(d time.Duration) wireDuration {
	return wireDuration{int64(d / time.Second), int32(d % time.Second)}
}

// duration is false beyond the range of time.Duration, some 292 years.
func (w wireDuration) duration() (time.Duration, bool) {
	const most = math.MaxInt64 / int64(time.Second)
	if w.Seconds > most || w.Seconds < -most {
		return 0, false
	}
	whole, rest := time.Duration(w.Seconds)*time.Second, time.Duration(w.Nanos)
	sum := whole + rest
	return sum, (sum >= whole) == (rest >= 0)
}

// RetryCode is what the sender of an error suggests to its receiver.
type RetryCode uint8

// The codes of Vanadium: do not call again; open a new connection first; look the server up anew first; wait first.
const (
	NoRetry RetryCode = iota
	RetryConnection
	RetryRefetch
	RetryBackoff
)

// VDLReflect tells the enum's name and labels.
func (RetryCode) VDLReflect(struct {
	Name string `vdl:"v.io/v23/vdl.WireRetryCode"`
	Enum struct{ NoRetry, RetryConnection, RetryRefetch, RetryBackoff string }
}) {
}

// String gives the label, "NoRetry".
func (c RetryCode) String() string {
	if labels := [...]string{"NoRetry", "RetryConnection", "RetryRefetch", "RetryBackoff"}; int(c) < len(labels) {
		return labels[c]
	}
	return fmt.Sprintf("RetryCode(%d)", uint8(c))
}

// UnknownError is the ID of an error that is none of Vanadium's.
const UnknownError = "v.io/v23/verror.Unknown"

// WireError is an error as Vanadium sends it. It is what a variable of type error gets when it is read. Of other errors
// nothing but the text is sent, under the ID UnknownError.
type WireError struct {
	// ID names the kind of error, "v.io/v23/verror.NoExist".
	ID    string
	Retry RetryCode
	Msg   string
	// Params are what the text was made of. The first two are Vanadium's component and operation.
	Params []any
}

var _ error = (*WireError)(nil)

// Error gives Msg, or the ID if there is none.
func (e *WireError) Error() string {
	if e.Msg == "" {
		return e.ID
	}
	return e.Msg
}

func toWireError(err error) *wireError {
	if e, ok := err.(*WireError); ok { // an error around it has another text
		return &wireError{e.ID, e.Retry, e.Msg, e.Params}
	}
	text := err.Error()
	return &wireError{UnknownError, NoRetry, text, []any{"", "", text}}
}

func (w *wireError) plain() *WireError { return &WireError{w.Id, w.RetryCode, w.Msg, w.ParamList} }
