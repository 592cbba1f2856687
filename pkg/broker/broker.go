// Package broker is publish/subscribe: messages to topics, and to whoever subscribed to them.
//
// The backends stand in the folders below; each tells in its doc what it promises. All pass the suite of package
// brokertest.
package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// MaxTopic is the limit of a topic's name, in bytes.
const MaxTopic = 128

// MaxID is the limit of a message's id, in bytes.
const MaxID = 256

// MaxMessage is the limit of a message's body in bytes, unless a backend is told another.
const MaxMessage = 4 << 20

// DefaultConcurrency is how many messages a subscription handles at once unless Concurrency says otherwise.
const DefaultConcurrency = 64

// DefaultTimeout bounds one handler's run, and so a Publish whose context has no deadline.
const DefaultTimeout = 30 * time.Second

// Errors of brokers, to be asked for with [errors.Is].
var (
	// ErrInvalid: the topic, the queue or the message cannot be carried.
	ErrInvalid = errors.New("broker: invalid")
	// ErrUnavailable: the broker, the registry it stands on, or (in a Delivery) the subscriber cannot be reached.
	ErrUnavailable = errors.New("broker: unavailable")
	// ErrBusy: the subscription runs as many handlers as it may, or too much waits for it; the message was not handled.
	ErrBusy = errors.New("broker: subscriber is busy")
	// ErrClosed: the broker or the subscription was closed.
	ErrClosed = errors.New("broker: closed")
)

// Message is what is published.
type Message struct {
	// Topic is where to.
	Topic string
	// ID tells one publication from another, the same on each delivery. For an empty one Publish makes one, which the
	// Report tells; it does not write to the message. A peer of another make may have sent none.
	ID string
	// Header is metadata; its content-type names the body's codec. The keys micro-topic and micro-id are the carrier's
	// own, and refused.
	Header metadata.MD
	// Body is the encoded value.
	Body []byte
}

// Handler handles a message. nil acknowledges it. It may run concurrently with itself, as often as Concurrency says.
// ctx ends at the subscription's timeout, or up to a hundredth of it sooner, and when the subscription is closed; after the
// handler has returned it may end at any time.
//
// m and its Body are the handler's own: it may keep them, unless it was subscribed with Reuse, and change them. The bytes of its Header may be those of other messages
// too, so they are not to be changed in place. Messages that came together share their storage, some 500 KiB: who keeps few
// of many copies those.
type Handler func(ctx context.Context, m *Message) error

// Delivery is what became of a message at one subscriber, or of several that fared alike there.
type Delivery struct {
	// Subscriber is the node, or another name by which the subscriber is known.
	Subscriber string
	// Queue is the queue that the subscriber is a member of; empty for none.
	Queue string
	// Err is nil where the handler returned nil; else what it returned, ErrBusy, a timeout, or why it was not reached.
	Err error
	// First and Last are the numbers of the messages, in the order in which Publish was given them, from 0. Both belong
	// to the entry: with one message they are 0.
	First, Last int
}

// Report tells what became of the messages of one Publish.
type Report struct {
	// ID is the message's; with several, the first one's.
	ID string
	// IDs are those of all messages, in the order of Publish.
	IDs []string
	// Deliveries has for each subscriber without a queue and for each queue one entry for each run of messages that fared
	// alike: a single one where all did. The entries of a subscriber are in the order of the messages. A broker that hands
	// messages to a server of its own, and cannot know, leaves it nil.
	Deliveries []Delivery
}

// Delivered counts the acknowledgements: one for each message at each subscriber.
func (r Report) Delivered() int {
	n := 0
	for _, d := range r.Deliveries {
		if d.Err == nil {
			n += d.Last - d.First + 1
		}
	}
	return n
}

// Of gives the report of message i alone.
func (r Report) Of(i int) Report {
	one := Report{ID: r.ID}
	if i < len(r.IDs) {
		one.ID = r.IDs[i]
	}
	one.IDs = []string{one.ID}
	if r.Deliveries != nil {
		one.Deliveries = []Delivery{}
	}
	for _, d := range r.Deliveries {
		if d.First <= i && i <= d.Last {
			d.First, d.Last = 0, 0
			one.Deliveries = append(one.Deliveries, d)
		}
	}
	return one
}

// Err joins the errors of the deliveries; nil where all acknowledged, or nobody listened.
func (r Report) Err() error {
	var errs []error
	for _, d := range r.Deliveries {
		switch {
		case d.Err == nil:
		case len(r.IDs) < 2:
			errs = append(errs, fmt.Errorf("subscriber %s: %w", d.Subscriber, d.Err))
		case d.First == d.Last:
			errs = append(errs, fmt.Errorf("subscriber %s, message %d: %w", d.Subscriber, d.First, d.Err))
		default:
			errs = append(errs, fmt.Errorf("subscriber %s, messages %d to %d: %w", d.Subscriber, d.First, d.Last, d.Err))
		}
	}
	return errors.Join(errs...)
}

// Broker carries messages. Its methods may be called concurrently.
type Broker interface {
	// Publish hands the messages over, which may be for different topics. With a broker that reaches subscribers itself it
	// returns when each has handled them, refused them, or run out of time, and tells which in the Report; with one that
	// stands between, when that one has confirmed them. An error means that none was published, or that it is not known; a
	// subscriber's failure is not an error of Publish but of its Delivery. Nobody listening is no error. Nothing is
	// delivered again unless the publisher asks for it by publishing again. A slow subscriber holds up Publish's return, not
	// what the others get. When ctx ends, messages that no handler has
	// begun may be left unhandled; their Delivery tells. The messages are not retained once Publish has returned.
	//
	// A subscription with Concurrency(1) handles the messages that one Publish gives it in their order, one after the
	// other. Others begin them in their order, as a rule, and may handle several at the same time. Messages of Publishes at
	// the same time are handled in any order. Who needs an order among those publishes when the earlier one has returned;
	// with a broker that stands between, Concurrency(1) as well.
	Publish(ctx context.Context, m ...*Message) (Report, error)
	// Subscribe calls h for each message of topic from now on. When it returns, publishers find the subscription.
	Subscribe(ctx context.Context, topic string, h Handler, opts ...SubscribeOption) (Subscription, error)
	io.Closer
}

// Subscription is a standing request for messages. Close takes it back, waits until its running handlers have returned
// (their contexts end first), and is safe to call twice. A handler that calls it waits for itself: start a goroutine.
type Subscription interface {
	Topic() string
	Queue() string
	io.Closer
}

// SubscribeOptions is what the options say, for backends to read.
type SubscribeOptions struct {
	Queue       string
	Concurrency int
	Timeout     time.Duration
	Reuse       bool
	Worker      func() Worker // nil for none
}

// SubscribeOption changes how a subscription behaves.
type SubscribeOption func(*SubscribeOptions)

// Queue makes the subscription a member of a queue: one member gets each message. Without it each subscription gets all.
func Queue(name string) SubscribeOption {
	return func(o *SubscribeOptions) { o.Queue = name }
}

// Concurrency bounds how many handlers the subscription runs at once. What is published beyond it waits a few
// milliseconds for a handler to return, and is refused with ErrBusy then; messages of one Publish wait for each other.
// Default DefaultConcurrency.
func Concurrency(n int) SubscribeOption {
	return func(o *SubscribeOptions) { o.Concurrency = n }
}

// Timeout bounds one handler's run. Default DefaultTimeout.
func Timeout(d time.Duration) SubscribeOption {
	return func(o *SubscribeOptions) { o.Timeout = d }
}

// Reuse says that the handler keeps nothing of a message, but its ID and Topic, once it has returned: its storage is then
// used for later ones, where the backend can. Default: a handler may keep messages.
func Reuse() SubscribeOption {
	return func(o *SubscribeOptions) { o.Reuse = true }
}

// Worker handles messages for one goroutine, one after the other.
type Worker interface {
	// Handle does what the subscription's Handler does.
	Handle(ctx context.Context, m *Message) error
	// Done says that no other message follows. It is called once, also where Handle has ended the goroutine.
	Done()
}

// Workers gives a handler that has something to prepare the chance to do it once for many messages: a backend that hands several
// to one goroutine may ask for a Worker for those, in place of the Handler. Default: the Handler is called. A broker that puts a Handler of
// its own in place of the one it was given, and passes the options on, adds Workers(nil) to them.
func Workers(worker func() Worker) SubscribeOption {
	return func(o *SubscribeOptions) { o.Worker = worker }
}

// ReadOptions gives what opts say over the defaults, or an error that wraps ErrInvalid. Backends call it.
func ReadOptions(opts []SubscribeOption) (SubscribeOptions, error) {
	o := SubscribeOptions{Concurrency: DefaultConcurrency, Timeout: DefaultTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	switch {
	case o.Queue != "" && !ValidTopic(o.Queue):
		return o, fmt.Errorf("%w: queue %q: want letters, digits, '.', '_', '-' or '/', %d bytes at most", ErrInvalid, o.Queue, MaxTopic)
	case o.Concurrency < 1:
		return o, fmt.Errorf("%w: concurrency %d, want 1 or more", ErrInvalid, o.Concurrency)
	case o.Timeout <= 0:
		return o, fmt.Errorf("%w: timeout %v, want more than 0", ErrInvalid, o.Timeout)
	}
	return o, nil
}

// ValidTopic reports whether name can be a topic or a queue: letters, digits, '.', '_', '-' and '/', MaxTopic bytes at
// most, with a letter or a digit first.
func ValidTopic(name string) bool {
	if name == "" || len(name) > MaxTopic {
		return false
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-/", rune(c))) {
			return false
		}
	}
	return true
}

// CheckTopic gives an error that wraps ErrInvalid where name is no topic.
func CheckTopic(name string) error {
	if !ValidTopic(name) {
		return fmt.Errorf("%w: topic %q: want letters, digits, '.', '_', '-' or '/', %d bytes at most", ErrInvalid, name, MaxTopic)
	}
	return nil
}

// CheckMessage gives an error that wraps ErrInvalid where m cannot be carried: a topic, an id or a header that is not
// valid, or a body of more than limit bytes. Backends call it in Publish.
func CheckMessage(m *Message, limit int) error {
	if m == nil {
		return fmt.Errorf("%w: no message", ErrInvalid)
	}
	if err := CheckTopic(m.Topic); err != nil {
		return err
	}
	if len(m.ID) > MaxID || strings.ContainsFunc(m.ID, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return fmt.Errorf("%w: message id of %d bytes: want printable text, %d bytes at most", ErrInvalid, len(m.ID), MaxID)
	}
	if len(m.Body) > limit {
		return fmt.Errorf("%w: body of %d bytes, limit %d", ErrInvalid, len(m.Body), limit)
	}
	if _, err := metadata.Parse(m.Header); err != nil {
		return fmt.Errorf("%w: header: %w", ErrInvalid, err)
	}
	for key, value := range m.Header.All() {
		if key == "micro-topic" || key == "micro-id" {
			return fmt.Errorf("%w: header %q is the carrier's own: set Topic and ID", ErrInvalid, key)
		}
		if !utf8.ValidString(value) {
			return fmt.Errorf("%w: header %q is no UTF-8", ErrInvalid, key)
		}
	}
	return nil
}

// CheckMessages is CheckMessage for each of ms, of which there must be one at least. The error tells which is not valid.
func CheckMessages(ms []*Message, limit int) error {
	if len(ms) == 0 {
		return fmt.Errorf("%w: no message", ErrInvalid)
	}
	var last *Message // whose topic and header were looked at
	for i, m := range ms {
		if last != nil && m != nil && m.ID == "" && len(m.Body) <= limit && m.Topic == last.Topic && bytes.Equal(m.Header, last.Header) {
			continue
		}
		if err := CheckMessage(m, limit); err != nil {
			if len(ms) > 1 {
				err = fmt.Errorf("message %d of %d: %w", i, len(ms), err)
			}
			return err
		}
		last = m
	}
	return nil
}

// Opener opens a broker by URL.
type Opener = opener.Func[Broker]

// Openers maps URL schemes to brokers.
type Openers = opener.Set[Broker]
