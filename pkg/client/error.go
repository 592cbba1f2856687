package client

import (
	"fmt"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Phase is a part of a call.
type Phase string

// The phases of an attempt, in order.
const (
	Select Phase = "select" // finding a node
	Dial   Phase = "dial"   // connecting to it
	Send   Phase = "send"   // sending: the node has not seen the whole call
	Wait   Phase = "wait"   // waiting for the answer: the node may have run the call
	Done   Phase = "done"   // an answer came
)

// Event tells that a phase of an attempt ended.
type Event struct {
	Phase   Phase
	Node    registry.Node // the zero Node before one is selected
	Attempt int           // from 1
	Elapsed time.Duration // of the phase
	Reused  bool          // Dial: the connection was there already
	Err     error
}

// Attempt is one node that was tried in vain.
type Attempt struct {
	Node  registry.Node
	Phase Phase // where it failed
	Err   error
}

// Error tells what failed, where, and after which attempts. Unwrap gives the cause of the last: a *status.Error that
// the node answered with, an error of the transport, or one of the selector.
type Error struct {
	Service  string
	Endpoint string
	Phase    Phase
	Elapsed  time.Duration // of the whole call
	Attempts []Attempt     // the last is the one that Err is of; empty where no node was found
	Err      error
}

// Error gives the service, the endpoint, the node, the phase and the cause in a line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "client: %s %s", e.Service, e.Endpoint)
	if n := len(e.Attempts); n > 0 {
		fmt.Fprintf(&b, ": node %s at %s, %s", e.Attempts[n-1].Node.ID, e.Attempts[n-1].Node.Address, e.Phase)
		if n > 1 {
			fmt.Fprintf(&b, ", attempt %d", n)
		}
	}
	fmt.Fprintf(&b, " (%v): %v", e.Elapsed.Round(10*time.Microsecond), e.Err)
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }
