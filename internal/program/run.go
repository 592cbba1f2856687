package program

import (
	"context"
	"errors"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
)

// Request is one call, or one message of a topic.
type Request struct {
	// Endpoint is what was called, Topic where the message came from; MICRO_ENDPOINT and MICRO_TOPIC.
	Endpoint, Topic string
	// ID names the request in logs; MICRO_REQUEST_ID.
	ID string
	// Caller says who asks, as far as it is known: an address or a service; MICRO_CALLER.
	Caller string
	// ContentType is the body's; MICRO_CONTENT_TYPE.
	ContentType string
	// Header is given as MICRO_HEADER_NAME: upper case, '_' for '-'. A value that holds a NUL byte, a name of other
	// characters than letters, digits, '-' and '_', and what goes over 32 KiB together is left out.
	Header metadata.MD
	// Body is the standard input. It is not retained when Run has returned.
	Body []byte
}

// Response is an answer.
type Response struct {
	// ContentType is application/json where Body is a JSON value, else text/plain.
	ContentType string
	// Body is the standard output, without the white space around a JSON value, and "{}" where there was none. The
	// receiver owns it.
	Body []byte
}

var errTimeout = errors.New("program: timeout")

// Run starts a process for req and waits for its answer. The ends of the process, and what Run returns:
//
//	exit 0                               the answer
//	another exit, standard output is     that code (400 to 599, else 500) and detail; on Unix file descriptor 3
//	{"error":{"code":N,"detail":"…"}}    may carry the object instead
//	exit 64, 65 (EX_USAGE, EX_DATAERR)   400
//	exit 66 (EX_NOINPUT)                 404
//	exit 69, 75 (EX_UNAVAILABLE, …)      503
//	exit 77 (EX_NOPERM)                  403
//	any other exit                       500 "exited with status N: <last line of standard error>"
//	killed by a signal                   500 "killed by SIGSEGV"
//	answer over MaxBody                  500, and the group is killed
//	over Timeout                         504, SIGTERM to the group and SIGKILL after Grace
//	over ctx's deadline                  408, likewise
//	ctx is cancelled                     499, likewise
//	queue full                           429, refused: nothing ran
//	cannot be started, or closed         503, refused: nothing ran
//
// The exit statuses are those of sysexits(3); 2 is not among them, for a Go program that panics exits with it. All
// errors are *status.Error. A call whose time has run out returns at once; its process is seen to its end behind, and
// keeps its place in the gate until then.
func (p *Program) Run(ctx context.Context, req Request) (Response, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.o.Timeout, errTimeout)
	defer cancel()
	if isClosed(p.closing) {
		return Response{}, errClosing()
	}
	if err := p.o.Gate.enter(ctx, p.closing); err != nil {
		return Response{}, err
	}
	c := newCall(p, req)
	if !p.admit(c) {
		p.o.Gate.leave()
		return Response{}, errClosing()
	}
	deadline, _ := ctx.Deadline()
	c.environ = p.callEnviron(&c.req, time.Until(deadline))
	go c.supervise()

	select {
	case <-c.done:
		return c.result()
	case <-ctx.Done():
	}
	select {
	case <-c.done: // both at once: the work is done, so give it
		return c.result()
	default:
	}
	c.stop()
	<-c.written // Body belongs to the caller again
	switch {
	case errors.Is(context.Cause(ctx), errTimeout):
		return Response{}, status.New(status.HandlerTimeout, "the handler took longer than %v", p.o.Timeout)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return Response{}, status.Wrap(ctx.Err(), status.DeadlineExceeded, "the caller's time ran out")
	}
	return Response{}, status.Wrap(ctx.Err(), status.Canceled, "the caller went away")
}
