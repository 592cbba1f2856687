package transport

import (
	"context"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
)

// UnaryServer is what a Conn of a Listener offers that answers unary calls itself, at less cost than through Recv and Send.
type UnaryServer interface {
	// ServeCalls reads the connection and answers its calls by route, until a message comes that is of a stream: it then
	// returns nil, and Recv yields that message. Otherwise it returns the error with which the connection ended, as Recv
	// does. It returns when each call that it began has been answered or given up. A Cancel ends the context of its call.
	ServeCalls(ctx context.Context, route Router) error
}

// Router gives the Route of a call by the framework's own headers (see Reserved), which are valid until it returns.
// It gives one for whatever it gets: that of a call which cannot be answered tells so.
type Router func(header metadata.MD) *Route

// Route is what a server makes of the headers of a unary call. A connection keeps it for further calls with the same
// ones, so it holds nothing of a single call.
type Route struct {
	// Header is a copy of the headers that the Route was made of, for calls to have; nobody changes it. Where it is nil the
	// connection makes one for itself.
	Header metadata.MD
	// Serve answers a call: it reads req and sets the Header and Body of rsp, appending to their storage. Both messages
	// are valid until it returns; their headers are the framework's own. ctx carries the caller's metadata
	// (metadata.Incoming). It ends when Serve returns, at its deadline, or when the caller has gone; it and its metadata
	// may be kept, as they are never another call's. Serve may be called concurrently. Where Pace is nil the storage of req's
	// Body is the call's own: Serve may keep it, and leaves nil, or other storage, in its place.
	Serve func(ctx context.Context, req, rsp *Message)
	// Timeout gives the time that a handler gets, of that which the caller asked for; zero is none, both ways. Nil: what
	// the caller asked for.
	Timeout func(asked time.Duration) time.Duration
	// Pace says on which goroutine the calls run. Nil is one for each.
	Pace *Pace
}
