package nsq

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gonsq "github.com/nsqio/go-nsq"
)

// The library's own producers and consumers are not used here, but what they are made of: its commands and messages. They send the secret
// in the clear where nsqd does not speak TLS though that was asked for, do not wait until a subscription stands, leave sockets to the
// garbage collector, and have no contexts.

const (
	heartbeat = 15 * time.Second // asked of nsqd; a connection that is silent for twice as long is dead
	maxFrame  = 256 << 20
	lastWords = time.Second // in which nsqd is read when nothing can be written any more
)

// settings are what a connection is made with.
type settings struct {
	name    string
	secret  string
	tls     *tls.Config
	timeout time.Duration
	ackWait time.Duration
}

// conn is a connection to an nsqd. Commands that have an answer are answered in their order. Its methods may be called concurrently.
type conn struct {
	addr    string
	net     net.Conn
	r       *bufio.Reader
	timeout time.Duration
	maxRdy  int
	message func(*conn, *gonsq.Message) // called for one after the other; it must not wait
	done    chan struct{}               // closed when the connection has ended

	writers atomic.Int64 // that write, or wait for their turn
	writing sync.Mutex
	w       *bufio.Writer

	mu    sync.Mutex
	asked []chan error // where the answers of commands go that are to come
	err   error        // why it has ended
	ended bool
	fatal bool  // nsqd refused a command: it reads no further one
	sick  error // why nothing can be written any more, while nsqd's last words are read
}

// identity is what nsqd says of itself, as far as it matters here.
type identity struct {
	MaxRdy int  `json:"max_rdy_count"`
	TLS    bool `json:"tls_v1"`
	Auth   bool `json:"auth_required"`
}

// dial makes a connection. It is closed by close. ctx, and the timeout, bound the making alone.
func dial(ctx context.Context, addr string, s settings, message func(*conn, *gonsq.Message)) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errNotRun)
	}
	c := &conn{addr: addr, net: raw, timeout: s.timeout, message: message, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	err = c.greet(ctx, s)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil && !errors.As(err, new(*refusal)) {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: %w", err, errNotRun)
	}
	_ = raw.SetDeadline(time.Time{})
	go c.read()
	return c, nil
}

func (c *conn) buffer() {
	c.r, c.w = bufio.NewReaderSize(c.net, 32<<10), bufio.NewWriterSize(c.net, 32<<10)
}

// greet says who this is, and goes over to TLS.
func (c *conn) greet(ctx context.Context, s settings) error {
	c.buffer()
	_, _ = c.w.Write(gonsq.MagicV2) // the error comes with the next
	host, _ := os.Hostname()
	hello, err := gonsq.Identify(map[string]any{
		"client_id": s.name, "hostname": host, "user_agent": "micro", "feature_negotiation": true, "tls_v1": s.tls != nil,
		"heartbeat_interval": heartbeat.Milliseconds(), "msg_timeout": s.ackWait.Milliseconds(),
		"output_buffer_size": -1, // otherwise nsqd keeps messages back for up to a quarter of a second
	})
	if err != nil {
		return err
	}
	var id identity
	switch data, err := c.ask(hello); {
	case err != nil:
		return err
	case json.Unmarshal(data, &id) != nil:
		return fmt.Errorf("it does not speak NSQ's protocol: %.40q", data)
	}
	c.maxRdy = max(id.MaxRdy, 1)
	switch {
	case s.tls != nil && !id.TLS:
		return errNoTLS // before the secret is sent
	case id.TLS:
		if err := c.upgrade(ctx, s.tls); err != nil {
			return err
		}
	}
	if !id.Auth {
		return nil
	}
	if s.secret == "" {
		return &refusal{code: "E_AUTH_FIRST"}
	}
	secret, err := gonsq.Auth(s.secret)
	if err != nil {
		return err
	}
	_, err = c.ask(secret)
	return err
}

// ask sends a command and reads its answer, before read runs.
func (c *conn) ask(cmd *gonsq.Command) ([]byte, error) {
	if _, err := cmd.WriteTo(c.w); err != nil {
		return nil, err
	}
	if err := c.w.Flush(); err != nil {
		return nil, err
	}
	return c.answer()
}

func (c *conn) answer() ([]byte, error) {
	for {
		kind, data, err := c.frame()
		switch {
		case err != nil:
			return nil, err
		case kind == gonsq.FrameTypeError:
			return nil, newRefusal(data)
		case string(data) == beat:
			continue
		}
		return data, nil
	}
}

func (c *conn) upgrade(ctx context.Context, config *tls.Config) error {
	if c.r.Buffered() > 0 {
		return errors.New("it says something before TLS begins")
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(c.addr)
	}
	secure := tls.Client(c.net, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	c.net = secure
	c.buffer()
	_, err := c.answer()
	return err
}

const beat = "_heartbeat_"

// frame reads one.
func (c *conn) frame() (kind int32, data []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 4 || size > maxFrame {
		return 0, nil, fmt.Errorf("it does not speak NSQ's protocol: a frame of %d bytes", size)
	}
	data = make([]byte, size-4)
	_, err = io.ReadFull(c.r, data)
	return int32(binary.BigEndian.Uint32(head[4:])), data, err
}

// read takes what nsqd sends, until the connection ends.
func (c *conn) read() {
	for {
		c.mu.Lock()
		if c.sick == nil {
			_ = c.net.SetReadDeadline(time.Now().Add(2 * heartbeat))
		}
		c.mu.Unlock()
		kind, data, err := c.frame()
		if err == nil {
			err = c.take(kind, data)
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *conn) take(kind int32, data []byte) error {
	switch {
	case kind == gonsq.FrameTypeMessage:
		m, err := gonsq.DecodeMessage(data)
		if err != nil {
			return err
		}
		if c.message != nil {
			c.message(c, m)
		}
	case kind == gonsq.FrameTypeError:
		r := newRefusal(data)
		if strings.HasPrefix(r.code, "E_FIN_") || strings.HasPrefix(r.code, "E_REQ_") || strings.HasPrefix(r.code, "E_TOUCH_") {
			return nil // the message is somebody else's by now
		}
		c.mu.Lock()
		c.fatal = true
		c.mu.Unlock()
		c.settle(r)
		return r // nsqd ends the connection too
	case string(data) == beat:
		return c.send(gonsq.Nop())
	default:
		c.settle(nil)
	}
	return nil
}

// settle gives the first command that waits its answer.
func (c *conn) settle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) > 0 {
		c.asked[0] <- err
		c.asked = c.asked[1:]
	}
}

// end ends the connection: what has no answer may have been done, unless nsqd had refused a command before it.
func (c *conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended, c.err = true, err
	if c.sick != nil {
		c.err = c.sick
	}
	if err = c.err; c.fatal {
		err = fmt.Errorf("%w: %w", errBroke, errNotRun)
	}
	for _, answer := range c.asked {
		answer <- err
	}
	c.asked = nil
	_ = c.net.Close()
	close(c.done)
}

// usable reports whether commands can be sent.
func (c *conn) usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.ended && !c.fatal && c.sick == nil
}

// close ends the connection.
func (c *conn) close() { c.end(net.ErrClosed) }

// leave ends the connection when nsqd has read all that was sent, or after d.
func (c *conn) leave(d time.Duration) {
	c.writing.Lock()
	err := c.w.Flush()
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && err == nil {
		err = half.CloseWrite()
	}
	c.writing.Unlock()
	if err == nil {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-c.done:
		case <-timer.C:
		}
	}
	c.close()
}

// send sends commands that have no answer.
func (c *conn) send(cmds ...*gonsq.Command) error { return c.write(cmds, nil) }

// do sends commands that have an answer each, and waits for those. It gives what became of each, nil where that is confirmed. An error
// that wraps errNotRun is of a command that nsqd has not seen.
func (c *conn) do(ctx context.Context, cmds ...*gonsq.Command) []error {
	answers := make([]chan error, len(cmds))
	for i := range answers {
		answers[i] = make(chan error, 1) // an answer that nobody waits for any more is left in it
	}
	outs := make([]error, len(cmds))
	if err := c.write(cmds, answers); err != nil {
		for i := range outs {
			outs[i] = err
		}
		return outs
	}
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	for i, answer := range answers {
		select {
		case outs[i] = <-answer:
			continue
		case <-ctx.Done():
			outs[i] = context.Cause(ctx)
		case <-timer.C:
			c.end(errNoAnswer)
			outs[i] = <-answer
		}
	}
	return outs
}

// write sends commands; answers are where their answers go.
func (c *conn) write(cmds []*gonsq.Command, answers []chan error) error {
	c.writers.Add(1)
	c.writing.Lock()
	defer c.writing.Unlock()
	last := func() bool { return c.writers.Add(-1) == 0 }
	c.mu.Lock()
	if c.ended || c.fatal || c.sick != nil {
		c.mu.Unlock()
		last() // what others had written goes nowhere either
		return fmt.Errorf("%w: %w", errBroke, errNotRun)
	}
	c.asked = append(c.asked, answers...)
	c.mu.Unlock()
	_ = c.net.SetWriteDeadline(time.Now().Add(c.timeout))
	var err error
	for _, cmd := range cmds {
		if _, err = cmd.WriteTo(c.w); err != nil {
			break
		}
	}
	if last() && err == nil { // whoever waits for its turn sends this too
		err = c.w.Flush()
	}
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sick == nil && !c.ended { // it may have said why before it went
		c.sick = err
		_ = c.net.SetReadDeadline(time.Now().Add(lastWords))
	}
	if answers == nil {
		return err
	}
	return nil // what became of it the answers tell
}
