package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/broker/internal/envelope"
)

// The environment that Open reads where the URL names no file.
const (
	EnvUsername = natsconn.EnvUsername
	EnvPassword = natsconn.EnvPassword
	EnvToken    = natsconn.EnvToken
	EnvCreds    = natsconn.EnvCreds
)

// Defaults of Options.
const (
	DefaultPendingBytes = 64 << 20
	DefaultTries        = 5
	DefaultRetryWait    = time.Second
	DefaultAckWait      = 30 * time.Second
	DefaultMaxAge       = 7 * 24 * time.Hour
)

// Options of New. The zero value is core NATS at the server of this machine.
type Options struct {
	// Servers are members of the cluster, host:port, tried in turn. Default 127.0.0.1:4222.
	Servers []string
	// Username and Password are for a server that asks for a login, or Token in their place, or CredentialsFile: a file of one line,
	// "name:password", which is read once, or one of NATS's own form, with a user's JWT and key.
	Username, Password, Token, CredentialsFile string
	// TLS makes the connections TLS, with this configuration. Nil: in the clear, but where the server insists on TLS.
	TLS *tls.Config
	// Name is how the server lists the connection. Default "micro".
	Name string
	// Timeout bounds connecting, each request, and how long Publish and Subscribe wait for a connection that broke. Default 5 s.
	Timeout time.Duration
	// MaxMessage bounds a message's body. Default broker.MaxMessage. The server has a bound of its own, max_payload, 1 MB by default,
	// for the message as it is sent, which is 4/3 as long and its header; Publish refuses what is over it.
	MaxMessage int
	// PendingBytes bounds what a subscription of core NATS buffers for its handlers. Default DefaultPendingBytes.
	PendingBytes int
	// Logger is told of NATS's absence and return, of handlers that failed, of messages that were dropped and of dead letters. Nil:
	// nobody is.
	Logger *slog.Logger

	// Stream is JetStream's stream, 32 letters, digits, '_' and '-' at most. Empty is core NATS, and the fields below must not be set then.
	Stream string
	// Tries is how often a message is delivered to a queue, or to a subscriber without one. Default DefaultTries.
	Tries int
	// RetryWait is after how long a message comes again whose handler failed the first time; the wait doubles each time, up to a
	// minute. Default DefaultRetryWait.
	RetryWait time.Duration
	// AckWait is after how long without a word of it a subscriber counts as dead, and another gets what it had. Handlers
	// may run longer. Default DefaultAckWait. Queues that are there keep theirs.
	AckWait time.Duration
	// From is where new queues, and subscriptions without one, begin. The zero value is with what is published from then on.
	From From
	// MaxAge is how long a stream that this broker makes keeps messages, acknowledged or not, and Replicas on how many servers.
	// Defaults DefaultMaxAge and 1.
	MaxAge   time.Duration
	Replicas int
}

// From is a place in a stream. One of its fields is set at most.
type From struct {
	All      bool      // with the oldest message that is kept
	Sequence uint64    // with this one; they count from 1
	Time     time.Time // with what was stored then or later
}

func (f From) isNew() bool { return !f.All && f.Sequence == 0 && f.Time.IsZero() }

// Broker publishes and subscribes over NATS.
type Broker struct {
	o      Options
	conn   *natsconn.Conn
	gate   *delivery.Gate
	series *delivery.Series
	stream *stream // nil for core NATS

	mu   sync.Mutex
	subs map[subscription]struct{}
}

// subscription is one of either kind.
type subscription interface {
	broker.Subscription
	// connected is called when there is a connection again.
	connected()
	// dropped is called when messages for sub were dropped, and reports whether it is this one's.
	dropped(sub *natsgo.Subscription) bool
}

// New gives a broker, without asking NATS anything: one that is not there, or takes no login, is the matter of the first
// Publish or Subscribe.
func New(o Options) (*Broker, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("%w: nats: %w", broker.ErrInvalid, err)
	}
	b := &Broker{o: o, gate: delivery.NewGate(), series: delivery.NewSeries(), subs: map[subscription]struct{}{}}
	var err error
	b.conn, err = natsconn.New(natsconn.Options{
		Servers: o.Servers, Username: o.Username, Password: o.Password, Token: o.Token, CredentialsFile: o.CredentialsFile,
		TLS: o.TLS, Name: o.Name, Timeout: o.Timeout, Logger: o.Logger, Words: words, Up: b.up, Failed: b.failed,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrInvalid, err)
	}
	if o.Stream != "" {
		b.stream = newStream(b)
	}
	return b, nil
}

var words = natsconn.Words{Interface: "broker", Unavailable: broker.ErrUnavailable, Closed: broker.ErrClosed}

// complete checks o and fills in what is not set.
func (o *Options) complete() error {
	if o.MaxMessage < 0 || o.PendingBytes < 0 || o.Tries < 0 || o.RetryWait < 0 || o.AckWait < 0 || o.MaxAge < 0 || o.Replicas < 0 {
		return errors.New("a limit is negative")
	}
	if o.Stream == "" && (o.Tries != 0 || o.RetryWait != 0 || o.AckWait != 0 || o.MaxAge != 0 || o.Replicas != 0 || !o.From.isNew()) {
		return errors.New("tries, waits, from, max-age and replicas are a stream's, and none is named")
	}
	if o.Stream != "" && !validStream(o.Stream) {
		return fmt.Errorf("stream %q: want letters, digits, '_' or '-', %d at most", o.Stream, maxStream)
	}
	if f := o.From; f.All && f.Sequence != 0 || !f.Time.IsZero() && (f.All || f.Sequence != 0) {
		return errors.New("from: more than one place is given")
	}
	fill(&o.MaxMessage, broker.MaxMessage)
	fill(&o.PendingBytes, DefaultPendingBytes)
	fill(&o.Tries, DefaultTries)
	fill(&o.RetryWait, DefaultRetryWait)
	fill(&o.AckWait, DefaultAckWait)
	fill(&o.MaxAge, DefaultMaxAge)
	fill(&o.Replicas, 1)
	if o.AckWait < minAckWait {
		return fmt.Errorf("ack-wait %v: want %v or more", o.AckWait, minAckWait)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Open makes a broker for a URL:
//
//	nats://host:4222,host2:4222?stream=NAME&tries=5
//
// Without a host it is the server of this machine, without a port 4222. The parameters are
//
//	timeout           Options.Timeout, such as 5s
//	max-message       Options.MaxMessage, in bytes
//	stream            Options.Stream: JetStream; the next are for it alone
//	tries             Options.Tries
//	retry-wait        Options.RetryWait, such as 1s
//	ack-wait          Options.AckWait, such as 30s
//	from              Options.From: new (the default), all, a sequence number, a time as in RFC 3339, or how long ago, such as 2h
//	max-age           Options.MaxAge, such as 168h
//	replicas          Options.Replicas
//	credentials-file  Options.CredentialsFile
//	token-file        a file of one line, the token; without either EnvUsername and EnvPassword, EnvToken or EnvCreds are read
//	tls               true: TLS, with the system's authorities; each of the files below says the same
//	ca-file           PEM: the authorities that the server's certificate may be of
//	cert-file         PEM: this client's certificate, and
//	key-file          PEM: its key
func Open(_ context.Context, u *url.URL) (broker.Broker, error) {
	o, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrInvalid, err)
	}
	b, err := New(o)
	if err != nil {
		return nil, err // not a Broker that holds a nil *Broker
	}
	return b, nil
}

func parse(u *url.URL) (Options, error) {
	c, params, err := natsconn.Parse(u, words, "timeout", "max-message", "stream", "tries", "retry-wait", "ack-wait", "from", "max-age", "replicas")
	if err != nil {
		return Options{}, err
	}
	o := Options{
		Servers: c.Servers, Username: c.Username, Password: c.Password, Token: c.Token, CredentialsFile: c.CredentialsFile, TLS: c.TLS,
		Stream: params["stream"],
	}
	for name, field := range map[string]*time.Duration{"timeout": &o.Timeout, "retry-wait": &o.RetryWait, "ack-wait": &o.AckWait, "max-age": &o.MaxAge} {
		if v, ok := params[name]; ok {
			if *field, err = time.ParseDuration(v); err != nil || *field <= 0 {
				return o, fmt.Errorf("nats: %s %q is not a duration above zero, such as 10s", name, v)
			}
		}
	}
	for name, field := range map[string]*int{"max-message": &o.MaxMessage, "tries": &o.Tries, "replicas": &o.Replicas} {
		if v, ok := params[name]; ok {
			if *field, err = strconv.Atoi(v); err != nil || *field <= 0 {
				return o, fmt.Errorf("nats: %s %q is not a number above zero", name, v)
			}
		}
	}
	o.From, err = parseFrom(params["from"], time.Now())
	return o, err
}

func parseFrom(v string, now time.Time) (From, error) {
	switch v {
	case "", "new":
		return From{}, nil
	case "all":
		return From{All: true}, nil
	}
	if n, err := strconv.ParseUint(v, 10, 64); err == nil && n > 0 {
		return From{Sequence: n}, nil
	}
	if t, err := time.Parse(time.RFC3339, v); err == nil && !t.IsZero() {
		return From{Time: t}, nil
	}
	if d, err := time.ParseDuration(v); err == nil && d > 0 {
		return From{Time: now.Add(-d)}, nil
	}
	return From{}, fmt.Errorf("nats: from %q: want new, all, a sequence number, a time such as 2026-01-02T15:04:05Z, or how long ago, such as 2h", v)
}

// Publish hands the messages to NATS and returns when it has confirmed that it has them; see the package's doc. An error wraps
// ErrUnavailable where NATS is away, or went before it had confirmed; it is a *status.Error where NATS refuses: a login that it does
// not take (401), a subject that the user may not publish to (403), a stream that is full (429).
func (b *Broker) Publish(ctx context.Context, ms ...*broker.Message) (broker.Report, error) {
	if err := broker.CheckMessages(ms, b.o.MaxMessage); err != nil {
		return broker.Report{}, err
	}
	if err := ctx.Err(); err != nil {
		return broker.Report{}, fmt.Errorf("broker: publish to %s: %w", ms[0].Topic, err)
	}
	inner, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return broker.Report{}, err
	}
	defer leave()
	ids := b.series.IDs(ms, b.series.Take(len(ms)))
	out := make([]*natsgo.Msg, len(ms))
	for i, m := range ms {
		out[i] = encode(m, ids[i])
	}
	if err := b.publish(inner, out); err != nil {
		return broker.Report{}, b.failure(ctx, "publish to "+ms[0].Topic, err)
	}
	return broker.Report{ID: ids[0], IDs: ids}, nil
}

// encode gives what is sent of a message.
func encode(m *broker.Message, id string) *natsgo.Msg {
	return &natsgo.Msg{Subject: subjectOf(m.Topic), Data: envelope.Encode(m, id), Header: natsgo.Header{idHeader: {dedup(m.Topic, id)}}}
}

// publish hands over what is encoded.
func (b *Broker) publish(ctx context.Context, out []*natsgo.Msg) error {
	nc, err := b.conn.Get(ctx)
	if err != nil {
		return err
	}
	limit := nc.MaxPayload()
	for i, m := range out {
		if b.stream != nil {
			m.Header.Set(streamHeader, b.stream.name)
		} else {
			m.Header = nil // it is for streams
		}
		if size := int64(m.Size() - len(m.Subject)); size > limit {
			return fmt.Errorf("%w: message %d has %d bytes as it is sent, and NATS at %s takes %d: raise its max_payload", broker.ErrInvalid, i, size, b.conn.Hosts(), limit)
		}
	}
	if b.stream != nil {
		return b.stream.publish(ctx, out)
	}
	return b.conn.Publish(ctx, out...)
}

// failure says what failed, where the error does not say it itself.
func (b *Broker) failure(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(err, broker.ErrClosed) || b.gate.Context().Err() != nil:
		return broker.ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("broker: %s: %w", what, ctx.Err())
	case errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, broker.ErrUnavailable):
		return fmt.Errorf("%w: %s: NATS at %s has not confirmed in time: %w", broker.ErrUnavailable, what, b.conn.Hosts(), err)
	}
	return err
}

// Subscribe is broker.Broker's; ctx has no part in it once it has returned. The errors are those of Publish.
func (b *Broker) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	if err := broker.CheckTopic(topic); err != nil {
		return nil, err
	}
	o, err := broker.ReadOptions(opts)
	if err != nil {
		return nil, err
	}
	if h == nil {
		return nil, fmt.Errorf("%w: no handler for topic %s", broker.ErrInvalid, topic)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("broker: subscribe to %s: %w", topic, err)
	}
	inner, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if _, err := b.conn.Get(inner); err != nil {
		return nil, b.failure(ctx, "subscribe to "+topic, err)
	}
	live, stop := b.conn.While(context.WithoutCancel(inner))
	defer stop()
	var s subscription
	if b.stream == nil {
		s, err = newCore(inner, b, topic, h, o)
	} else {
		s, err = newConsumer(inner, b, topic, h, o)
	}
	if err != nil {
		return nil, b.failure(ctx, "subscribe to "+topic, err)
	}
	b.mu.Lock()
	b.subs[s] = struct{}{}
	b.mu.Unlock()
	if live.Err() != nil { // it may have come again before s was told of that
		s.connected()
	}
	return s, nil
}

// all gives the subscriptions.
func (b *Broker) all() []subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]subscription, 0, len(b.subs))
	for s := range b.subs {
		all = append(all, s)
	}
	return all
}

func (b *Broker) forget(s subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

func (b *Broker) up(*natsgo.Conn) {
	if b.stream != nil {
		b.stream.connected()
	}
	for _, s := range b.all() {
		s.connected()
	}
}

func (b *Broker) failed(sub *natsgo.Subscription, err error) {
	if errors.Is(err, natsgo.ErrSlowConsumer) {
		for _, s := range b.all() {
			if s.dropped(sub) {
				return
			}
		}
	}
	b.o.Logger.Warn("nats reports an error", "nats", b.conn.Hosts(), "error", natsconn.Reason(err))
}

// Close ends the calls that are under way, closes the subscriptions, and then the connection.
func (b *Broker) Close() error {
	b.gate.Close() // nobody is inside Subscribe after it
	var wg sync.WaitGroup
	for _, s := range b.all() {
		wg.Go(func() { _ = s.Close() }) // it has no error to give
	}
	wg.Wait()
	if b.stream != nil {
		b.stream.close()
	}
	b.conn.Close()
	return nil
}
