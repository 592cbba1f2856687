package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
)

// stream opens the stream, sends messages and prints the answers as they come. listen reads messages from standard input
// in any case, after the one that was given.
func (c *caller) stream(ctx context.Context, listen bool) error {
	if c.o.include {
		return usage("%s streams: its answers have no headers for --include", c.o.endpoint)
	}
	if c.in.out.format == "name" && c.in.out.query == nil {
		return usage("%s streams: its answers have no names for -o name", c.o.endpoint)
	}
	first, err := c.firstMessage()
	if err != nil {
		return err
	}
	if c.in.timeoutGiven {
		var cancel context.CancelFunc
		ctx, cancel = c.in.deadline(ctx)
		defer cancel()
	}
	ctx, stop := c.in.whileRead(ctx)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	st, err := c.open(ctx, cancel)
	if err != nil {
		return unlessUnread(ctx, c.explain(ctx, err))
	}
	sent := make(chan struct{})
	var refused atomic.Pointer[error] // a message that was not sent
	go func() {                       // ends with the stream; it is left behind in a read of standard input, which nothing can take back
		defer close(sent)
		if err := c.feed(ctx, st, first, listen); err != nil {
			refused.Store(&err)
			_ = st.CloseSend() // what was sent before is still answered, in the time for a call
			timer := time.AfterFunc(c.in.timeout, func() { cancel(err) })
			context.AfterFunc(ctx, func() { timer.Stop() })
		}
	}()
	err = c.receive(ctx, st)
	_ = st.Close() // it has no error to give
	if !c.reads(listen) {
		<-sent
	}
	if unsent := refused.Load(); unsent != nil && (err == nil || codeOf(err) != exitInterrupted) {
		return *unsent
	}
	return err
}

// firstMessage is what the command line gives, or {} for an endpoint that takes one request where nothing else can come.
func (c *caller) firstMessage() ([]byte, error) {
	i := c.o.input
	if !i.given {
		return nil, nil
	}
	body, err := c.in.body(context.Background(), i, c.requestSchema()) // which reads no standard input
	if err != nil {
		return nil, err
	}
	return body, c.check(body, "request", "nothing was sent")
}

// reads reports whether messages come from standard input: for call, where it has data and nothing was given; for stream,
// always, but that an endpoint that takes one request reads only one, and none from a terminal.
func (c *caller) reads(listen bool) bool {
	switch {
	case c.kind() == server.ServerStream && c.o.input.given:
		return false
	case c.kind() == server.ServerStream && listen:
		return !c.in.StdinTTY
	}
	return listen || c.o.input.stdin
}

// open opens the stream within the time for a call.
func (c *caller) open(ctx context.Context, cancel context.CancelCauseFunc) (*client.Stream, error) {
	late := time.AfterFunc(c.in.timeout, func() { cancel(context.DeadlineExceeded) })
	defer late.Stop()
	opts := []client.CallOption{client.Filter(c.filters()...), client.ContentType(c.o.input.contentType), client.Observe(c.observeCall(0))}
	if c.o.address != "" {
		opts = append(opts, client.Address(c.o.address))
	}
	for k, v := range c.o.header.metadata.All() {
		opts = append(opts, client.Header(k, v))
	}
	st, err := c.client.Stream(ctx, c.o.service, or(c.path, c.o.endpoint), opts...)
	var ce *client.Error
	if errors.As(err, &ce) && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		ce.Err = context.DeadlineExceeded // and not that it was cancelled
	}
	return st, err
}

// feed sends the messages, and then the end of them.
func (c *caller) feed(ctx context.Context, st *client.Stream, first []byte, listen bool) error {
	n := 0
	send := func(body []byte) error {
		n++
		body, err := c.o.input.wire(body)
		if err != nil {
			return err
		}
		err = st.SendRaw(body)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return errStreamEnded // the answers tell how
		}
		return err
	}
	err := error(nil)
	if first != nil {
		err = send(first)
	}
	if err == nil && c.reads(listen) {
		err = c.sendInput(&n, send)
	}
	if err == nil && n == 0 && c.kind() == server.ServerStream {
		err = send([]byte("{}"))
	}
	var f *failure
	switch {
	case errors.Is(err, errStreamEnded):
		return nil
	case errors.As(err, &f):
		return f
	case err != nil:
		return nil // the connection failed: the answers tell how
	}
	_ = st.CloseSend() // where it fails the connection has: the answers tell how
	return nil
}

var errStreamEnded = errors.New("the stream has ended")

// sendInput sends the JSON values of standard input as they come.
func (c *caller) sendInput(n *int, send func([]byte) error) error {
	if c.in.StdinTTY {
		c.in.note("type JSON values; Ctrl-D ends")
	}
	values := newValueReader(c.in.Stdin)
	for {
		body, err := values.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTooLarge):
			return usage("message %d is %s; it was not sent", *n+1, err).because(err)
		case err != nil:
			return usage("message %d is not JSON: %s; it was not sent", *n+1, err).because(err)
		}
		if err := c.check(body, fmt.Sprintf("message %d", *n+1), "it was not sent"); err != nil {
			return err
		}
		if err := send(body); err != nil {
			return err
		}
		if c.kind() == server.ServerStream {
			return nil
		}
	}
}

// receive prints the answers until the stream ends.
func (c *caller) receive(ctx context.Context, st *client.Stream) error {
	begun := time.Now()
	out := c.in.out.stream(nil)
	contentType := "" // which the answers do not tell
	if c.o.input.form != nil {
		contentType = st.ContentType()
	}
	err := error(nil)
	for err == nil {
		var body []byte
		if body, err = st.RecvRaw(); err == nil {
			err = c.in.printItem(ctx, out, contentType, body)
		} else if !errors.Is(err, io.EOF) {
			err = &client.Error{Service: c.o.service, Endpoint: c.o.endpoint, Phase: client.Wait, Elapsed: time.Since(begun),
				Attempts: []client.Attempt{{Node: st.Node(), Phase: client.Wait, Err: err}}, Err: err}
		}
	}
	var f *failure
	if cause := context.Cause(ctx); errors.As(cause, &f) || errors.Is(cause, errReaderGone) {
		err = cause // the reason for the stream's end
	}
	if outOfTime(err) {
		err = fail(exitTimeout, "%s %s: the stream did not end within %s", c.o.service, c.o.endpoint, c.in.timeout).because(err)
	}
	switch {
	case errors.Is(err, io.EOF):
		return out.close()
	case errors.Is(err, errReaderGone), brokenPipe(err):
		return nil
	case out.items > 0:
		if closeErr := out.close(); closeErr != nil {
			return closeErr
		}
	}
	if errors.As(err, &f) {
		return f
	}
	return c.explain(ctx, err)
}

// valueReader reads JSON values that stand one after another, each as soon as it is complete.
type valueReader struct {
	dec *json.Decoder
	in  *meteredReader
}

// meteredReader refuses to read further than its limit: a value without an end must not fill the memory.
type meteredReader struct {
	io.Reader
	left int64
}

var errTooLarge = errors.New("larger than 4 MiB, the most that a message carries")

func (r *meteredReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errTooLarge
	}
	n, err := r.Reader.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

func newValueReader(r io.Reader) *valueReader {
	m := &meteredReader{Reader: r}
	return &valueReader{json.NewDecoder(m), m}
}

// next gives the next value; io.EOF after the last.
func (v *valueReader) next() ([]byte, error) {
	v.in.left = maxBody
	var raw json.RawMessage
	if err := v.dec.Decode(&raw); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errors.New("it is cut off")
		}
		return nil, err
	}
	return raw, nil
}
