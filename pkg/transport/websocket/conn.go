package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
	"github.com/cb02dfca/micro/pkg/transport/internal/unsent"
)

// closeTime bounds the farewell: until the peer has answered that the WebSocket is being closed.
const closeTime = 500 * time.Millisecond

const (
	keepStorage = 256 << 10 // the largest storage, in bytes, that a connection keeps for its next message
	readSize    = 1 << 10   // what is read at a time of a frame before its body has storage
)

// Conn is a WebSocket. Its messages are binary, or JSON text where its peer is a page.
type Conn struct {
	ws     *websocket.Conn
	box    *outbox
	o      *Options
	remote string
	page   bool

	tracker *drain.Tracker // on the server's side alone
	forget  func(*Conn)    // likewise: called once when the connection has ended
	highest atomic.Uint32  // on the client's side: the highest id that it has sent

	stream  chan struct{} // held while a message of a stream is sent, whole or in parts
	turns   [lanes]chan struct{}
	partial chan struct{} // has a token for each message that is being sent in parts
	writing sync.Mutex    // held while something is put into the outbox, which is at once
	out     []byte        // storage for that

	frames *frame.Assembler // of the reader; nil for a page
	began  time.Time
	waited time.Duration // of the reader: for its user, which is no fault of the peer's
	buf    []byte
	in     chan received           // what was read, one ahead
	spare  chan *transport.Message // storage for what is read

	once   sync.Once
	err    error // why it ended; read after closed
	closed chan struct{}
	work   sync.WaitGroup
}

// received is what the reader hands over: a message, perhaps with what is wrong with it.
type received struct {
	m      *transport.Message
	failed error
}

var _ transport.Conn = (*Conn)(nil)

// newConn begins to read. forget is nil on a client's side.
func newConn(ws *websocket.Conn, box *outbox, remote string, o *Options, page bool, forget func(*Conn)) *Conn {
	c := &Conn{
		ws: ws, box: box, o: o, remote: remote, page: page, forget: forget,
		stream: make(chan struct{}, 1), partial: make(chan struct{}, frame.MaxPartial), in: make(chan received, 1), spare: make(chan *transport.Message, 2), closed: make(chan struct{}),
	}
	for i := range c.turns {
		c.turns[i] = make(chan struct{}, 1)
	}
	if !page {
		c.frames, c.began, c.buf = frame.NewAssembler(o.MaxMessage, o.bodies), time.Now(), make([]byte, readSize)
		box.limit = maxQueued + 4*frame.MaxBody // what is longer goes out in parts
	}
	unsent.Bound(box.Conn)
	if forget != nil {
		c.tracker = new(drain.Tracker)
	}
	ws.SetReadLimit(-1) // what is over the limit is skipped here, and the connection lives on
	c.work.Go(c.read)
	c.work.Go(c.keepAlive)
	return c
}

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() string { return c.remote }

// Send has m written. It returns when m has its place in the queue of what is written, which is short: a peer that does not
// read makes it wait. A large body goes to a program in parts, between which other messages pass.
func (c *Conn) Send(ctx context.Context, m *transport.Message) error {
	if err := transport.Check(m, c.o.MaxMessage); err != nil {
		return err
	}
	inParts := !c.page && len(m.Body) > frame.MaxBody
	if inParts && !frame.Divisible(m.Kind) {
		return fmt.Errorf("%w: %s with a body of %d bytes, limit %d", transport.ErrTooLarge, m.Kind, len(m.Body), frame.MaxBody)
	}
	if m.Kind == transport.Data || m.Kind == transport.End { // none begins before the one ahead of it is complete
		if err := c.take(ctx, c.stream); err != nil {
			return c.notSent(err)
		}
		defer func() { <-c.stream }()
	}
	if inParts {
		return c.sendParts(ctx, m)
	}
	if err := c.await(ctx, wholes); err != nil {
		return c.notSent(err)
	}
	defer func() { <-c.turns[wholes] }()
	defer c.sending(m)()
	if c.page {
		return c.writeText(m)
	}
	return c.write(headOf(m, len(m.Body), 0), m.Header, m.Body)
}

// sendParts sends a message in frames. Where ctx ends between two of them, the peer is told to forget what it has.
func (c *Conn) sendParts(ctx context.Context, m *transport.Message) error {
	if err := c.take(ctx, c.partial); err != nil {
		return c.notSent(err)
	}
	defer func() { <-c.partial }()
	h, section, rest := headOf(m, 0, frame.More), []byte(m.Header), m.Body
	for first := true; ; first = false {
		if err := c.await(ctx, parts); err != nil {
			return c.cutOff(m, first, err)
		}
		if first {
			defer c.sending(m)()
		}
		part := rest[:min(len(rest), frame.PartBody)]
		if rest = rest[len(part):]; len(rest) == 0 {
			h.Flags &^= frame.More
		}
		h.Body = uint32(len(part))
		err := c.write(h, section, part)
		<-c.turns[parts]
		if err != nil || len(rest) == 0 {
			return err
		}
		h, section = frame.Header{ID: m.ID, Kind: m.Kind, Flags: frame.Cont | frame.More}, nil
	}
}

// cutOff gives the error of a message that cannot be sent whole, and takes back what was sent of it.
func (c *Conn) cutOff(m *transport.Message, first bool, err error) error {
	switch {
	case first:
	case c.isClosed():
		return fmt.Errorf("transport/websocket: the connection to %s ended within a message: %w", c.remote, c.err)
	default:
		if err := c.write(frame.Header{ID: m.ID, Kind: m.Kind, Flags: frame.Cont | frame.Abort}, nil, nil); err != nil {
			return err
		}
	}
	return c.notSent(err)
}

// sending notes that m is about to be written, and gives what notes that it is.
func (c *Conn) sending(m *transport.Message) (sent func()) {
	if c.tracker != nil {
		c.tracker.Sending(m.Kind, m.ID)
		return func() { c.tracker.Sent(m.Kind) }
	}
	for {
		was := c.highest.Load()
		if m.ID <= was || c.highest.CompareAndSwap(was, m.ID) {
			return func() {}
		}
	}
}

// write puts a frame into the outbox.
func (c *Conn) write(h frame.Header, section, body []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	out := c.out[:0]
	if n := frame.HeaderSize + len(section) + len(body); n >= frame.Large {
		out = c.o.bodies.Body(n)
		defer func() { c.o.bodies.Keep(out) }()
	} else {
		defer func() { c.out = out }()
	}
	out = appendFrame(out, h, section, body)
	return c.put(websocket.MessageBinary, out)
}

// writeText puts a message for a page into the outbox.
func (c *Conn) writeText(m *transport.Message) (err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.out, err = appendText(c.out[:0], m); err != nil {
		return err
	}
	err = c.put(websocket.MessageText, c.out)
	if cap(c.out) > keepStorage {
		c.out = nil
	}
	return err
}

func (c *Conn) put(typ websocket.MessageType, data []byte) error {
	if err := c.ws.Write(context.Background(), typ, data); err != nil { // into the outbox: it does not wait
		return c.end(fmt.Errorf("transport/websocket: write to %s: %w", c.remote, err))
	}
	return nil
}

// take puts a token into a channel that has room for so many.
func (c *Conn) take(ctx context.Context, tokens chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return c.err
	}
}

// await waits for the turn in a lane, and for room.
func (c *Conn) await(ctx context.Context, lane int) error {
	if err := c.take(ctx, c.turns[lane]); err != nil {
		return err
	}
	for {
		if c.isClosed() {
			<-c.turns[lane]
			return c.err
		}
		room, full := c.box.full(lane)
		if !full {
			return nil
		}
		select {
		case <-room:
			continue
		case <-c.closed:
			continue
		case <-ctx.Done():
		}
		<-c.turns[lane]
		return ctx.Err()
	}
}

// notSent wraps the reason for which nothing of a message was sent.
func (c *Conn) notSent(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s has closed the connection", transport.ErrNotSent, c.remote)
	}
	return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.remote, err)
}

// Recv waits for the next message.
func (c *Conn) Recv(ctx context.Context, m *transport.Message) error {
	for {
		in, err := c.next(ctx)
		if err != nil {
			return err
		}
		mine, err := c.sort(ctx, in.m, in.failed)
		if mine {
			*m, *in.m = *in.m, *m
		}
		c.reuse(in.m)
		if err != nil || mine {
			return err
		}
	}
}

func (c *Conn) next(ctx context.Context) (received, error) {
	if err := ctx.Err(); err != nil {
		return received{}, err
	}
	if c.isClosed() && errors.Is(c.err, transport.ErrClosed) {
		return received{}, c.err
	}
	select {
	case in := <-c.in:
		return in, nil
	case <-ctx.Done():
		return received{}, ctx.Err()
	case <-c.closed:
	}
	select {
	case in := <-c.in: // it came before the end
		if !errors.Is(c.err, transport.ErrClosed) {
			return in, nil
		}
	default:
	}
	return received{}, c.err
}

// sort judges a message and answers those that the connection answers itself. It reports whether m is the receiver's.
func (c *Conn) sort(ctx context.Context, m *transport.Message, failed error) (bool, error) {
	verdict := drain.Take
	if c.tracker != nil {
		verdict = c.tracker.Received(m.Kind, m.ID)
	} else if !c.expected(m) {
		verdict = drain.Broken
	}
	switch {
	case verdict == drain.Broken:
		return false, c.misfit(m)
	case verdict == drain.Drop:
		return false, nil
	case verdict == drain.Refuse:
		return false, c.answer(ctx, drain.Refusal(m.Kind, m.ID))
	case failed != nil && c.tracker != nil && (m.Kind == transport.Call || m.Kind == transport.Open):
		return false, c.answer(ctx, drain.Failure(m.Kind, m.ID, c.fault(failed)))
	case m.Kind == transport.Ping:
		return false, c.answer(ctx, &transport.Message{Kind: transport.Pong, ID: m.ID})
	}
	return true, failed
}

// misfit ends the connection because of a message that fits nothing.
func (c *Conn) misfit(m *transport.Message) error {
	why := ""
	if m.Kind == transport.Call || m.Kind == transport.Open {
		why = ": an id is used once at a time, and a stream has its WebSocket to itself"
	}
	return c.end(fmt.Errorf("%w: %s sent a %s with id %d, which fits nothing under way%s", transport.ErrProtocol, c.remote, m.Kind, m.ID, why))
}

// fault is the answer to a call that cannot be taken.
func (c *Conn) fault(failed error) *status.Error {
	var e *status.Error
	if errors.As(failed, &e) {
		return e
	}
	return status.New(status.TooLarge, "the message is over the limit of %d bytes", c.o.MaxMessage)
}

// expected reports whether a client may get m: an answer must be one to an id that it has sent.
func (c *Conn) expected(m *transport.Message) bool {
	switch m.Kind {
	case transport.Reply, transport.Opened, transport.Data, transport.End:
		return m.ID <= c.highest.Load()
	case transport.Ping, transport.Pong, transport.GoAway:
		return true
	}
	return false
}

// answer sends a message of the connection's own. The end of ctx, which is that of a Recv, does not lose it: a peer that
// does not read is given up after the write timeout.
func (c *Conn) answer(ctx context.Context, m *transport.Message) error {
	err := c.Send(context.WithoutCancel(ctx), m)
	if err != nil && c.isClosed() {
		return c.err
	}
	if errors.Is(err, transport.ErrNotSent) {
		return nil
	}
	return err
}

// read hands messages over until the connection ends.
func (c *Conn) read() {
	for {
		in, err := c.message()
		if err != nil {
			_ = c.end(c.ended(err))
			return
		}
		select {
		case c.in <- in:
			continue
		default:
		}
		at := time.Now()
		select {
		case c.in <- in:
			c.waited += time.Since(at)
		case <-c.closed:
			return
		}
	}
}

// message reads until a message is complete. Its error ends the connection.
func (c *Conn) message() (received, error) {
	for {
		in, complete, err := c.readMessage()
		if complete || err != nil {
			return in, err
		}
	}
}

// readMessage reads one message of the WebSocket: ours, or a part of it.
func (c *Conn) readMessage() (in received, complete bool, err error) {
	if c.frames != nil && !c.frames.Between() {
		c.box.begin(c.clock() - c.frames.Oldest()) // what is to complete it may be late
	}
	typ, r, err := c.ws.Reader(context.Background())
	switch {
	case err != nil && c.frames != nil && !c.frames.Between():
		return in, false, c.within(err)
	case err != nil:
		return in, false, err
	}
	want := websocket.MessageBinary
	if c.page {
		want = websocket.MessageText
	}
	if typ != want {
		return in, false, fmt.Errorf("%w: a %s message, want %s", transport.ErrProtocol, kindOf(typ), kindOf(want))
	}
	m := c.storage()
	if c.page {
		c.box.begin(0)
		defer c.box.done()
		complete, err = true, readText(r, m, c.o.MaxMessage)
	} else {
		c.frames.Clock = c.clock()
		c.box.begin(c.frames.Clock - c.frames.Oldest())
		defer c.box.done()
		if complete, err = readFrame(r, c.frames, c.buf); complete && err == nil {
			err = c.frames.Take(m)
		}
	}
	if !complete && err == nil {
		c.reuse(m)
		return in, false, nil
	}
	switch e := (*status.Error)(nil); {
	case err == nil:
	case errors.Is(err, transport.ErrTooLarge):
	case errors.As(err, &e) && (m.Kind == transport.Call || m.Kind == transport.Open):
	case errors.As(err, &e):
		return in, false, fmt.Errorf("%w: a %s: %s", transport.ErrProtocol, m.Kind, e.Detail)
	default:
		return in, false, c.within(err)
	}
	return received{m, err}, true, nil
}

// clock counts the time that is the peer's: not that in which nobody took what it had sent.
func (c *Conn) clock() time.Duration { return time.Since(c.began) - c.waited }

// within gives the error of a read within a message.
func (c *Conn) within(err error) error {
	if websocket.CloseStatus(err) != -1 || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s has closed the connection within a message", io.ErrUnexpectedEOF, c.remote)
	}
	return err
}

func kindOf(t websocket.MessageType) string {
	if t == websocket.MessageText {
		return "text"
	}
	return "binary"
}

// ended tells what the error of a read means.
func (c *Conn) ended(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("transport/websocket: from %s: %w", c.remote, err)
	case websocket.CloseStatus(err) == websocket.StatusNormalClosure, websocket.CloseStatus(err) == websocket.StatusGoingAway,
		websocket.CloseStatus(err) == websocket.StatusNoStatusRcvd, errors.Is(err, io.EOF):
		return io.EOF
	case websocket.CloseStatus(err) != -1:
		var ce websocket.CloseError
		_ = errors.As(err, &ce)
		return fmt.Errorf("%w: %s has closed the connection: %d %.125q", transport.ErrProtocol, c.remote, ce.Code, ce.Reason)
	}
	return fmt.Errorf("transport/websocket: from %s: %w", c.remote, err)
}

// storage gives a message to read into.
func (c *Conn) storage() *transport.Message {
	select {
	case m := <-c.spare:
		return m
	default:
		return new(transport.Message)
	}
}

// reuse takes a message back.
func (c *Conn) reuse(m *transport.Message) {
	if cap(m.Body) > keepStorage || c.frames != nil && cap(m.Body) >= frame.Large {
		c.o.bodies.Keep(m.Body)
		m.Body = nil
	}
	select {
	case c.spare <- m:
	default:
	}
}

// keepAlive has the peer asked for a sign of life where nothing came, and given one where nothing went out: a peer whose user
// does not receive reads no Ping, and is not taken for lost as long as it sends.
func (c *Conn) keepAlive() {
	tick := time.NewTicker(c.o.Silence / 3)
	defer tick.Stop()
	var reads, writes uint64
	for {
		select {
		case <-c.closed:
			return
		case <-tick.C:
		}
		r, w := c.box.reads.Load(), c.box.writes.Load()
		if r == reads || w == writes {
			ctx, stop := context.WithTimeout(context.Background(), c.o.Silence/3)
			_ = c.ws.Ping(ctx) // what comes of it is Read's to see
			stop()
		}
		reads, writes = r, w
	}
}

// Close tells the peer, breaks the connection, and returns when its goroutines have ended.
func (c *Conn) Close() error {
	_ = c.end(transport.ErrClosed)
	c.work.Wait()
	return nil
}

func (c *Conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// end ends the connection because of err, and gives the error of which it ended, which may be an earlier one.
func (c *Conn) end(err error) error {
	c.once.Do(func() {
		c.err = err
		c.work.Go(func() { c.farewell(err) }) // the reader, or its end, is still counted
		close(c.closed)
		if c.forget != nil {
			c.forget(c)
		}
	})
	<-c.closed // err is set
	return c.err
}

// farewell closes the WebSocket as RFC 6455 has it, in section 7, as far as the peer takes part in that in time.
func (c *Conn) farewell(err error) {
	late := time.AfterFunc(closeTime, func() { _ = c.box.Conn.Close() })
	defer late.Stop()
	code, reason := websocket.StatusNormalClosure, ""
	switch {
	case errors.Is(err, errTooMuch):
		code, reason = websocket.StatusMessageTooBig, reasonOf(err)
	case errors.Is(err, transport.ErrProtocol):
		code, reason = websocket.StatusProtocolError, reasonOf(err)
	}
	if cerr := c.ws.Close(code, reason); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
		_ = c.ws.CloseNow()
	}
	_ = c.box.cut()
}

// reasonOf gives an error as the reason of a close, which has 123 bytes.
func reasonOf(err error) string {
	s := err.Error()
	for _, known := range []string{"transport/websocket: ", "from "} {
		if len(s) > len(known) && s[:len(known)] == known {
			s = s[len(known):]
		}
	}
	for len(s) > 120 || len(s) > 0 && s[len(s)-1]&0xc0 == 0x80 && len(s) > 119 { // not within a character
		s = s[:len(s)-1]
	}
	return s
}

// Drain tells the peer that the connection takes nothing more, and closes it when nothing is under way. ctx's end leaves
// it as it is.
func (c *Conn) Drain(ctx context.Context) {
	c.tracker.Shutdown(ctx, c, func(ctx context.Context, event <-chan struct{}) bool {
		select {
		case <-event:
			return true
		case <-c.closed:
		case <-ctx.Done():
		}
		return false
	})
}

// TurnAway refuses what the client sends until it has read GoAway, and closes the connection.
func (c *Conn) TurnAway() {
	ctx, stop := context.WithTimeout(context.Background(), drain.Grace)
	defer stop()
	c.tracker.Drain()
	var m transport.Message
	for err := c.Send(ctx, &transport.Message{Kind: transport.GoAway}); err == nil; {
		err = c.Recv(ctx, &m)
	}
	c.Close()
}
