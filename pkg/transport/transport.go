// Package transport is synchronous messaging: connections that carry calls and streams between a client and a server.
//
// The backends stand in the folders below. All pass the suite of package transporttest.
package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// Kind tells what a message is.
type Kind uint8

// The kinds of messages. A unary call is one Call and one Reply with the same ID, and many may be under way on one
// connection. A stream owns its connection: Open, then Data both ways; each side ends its own direction with End.
const (
	Call   Kind = 1 + iota // client: a unary request, with Timeout and the headers of a call
	Reply                  // server: its answer; HeaderError where it failed
	Open                   // client: opens a stream, with the headers of a call; its body is ignored
	Data                   // both: a message of the stream
	End                    // both: no more messages this way. From the server it ends the stream: HeaderError tells how
	Cancel                 // client: the caller no longer waits for the Call or the stream with this ID
	Ping                   // both: asks for a Pong with the same ID
	Pong                   // both: answers a Ping; one that nobody asked for is to be ignored
	GoAway                 // server: this connection takes no new Call or Open; those under way are answered
	Opened                 // server: the Open with this ID is taken. One that is not is answered by End at once
)

// String gives the kind's name.
func (k Kind) String() string {
	names := [...]string{"kind 0", "call", "reply", "open", "data", "end", "cancel", "ping", "pong", "goaway", "opened"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown kind"
}

// Headers that the framework itself sets and reads. All keys that begin with "micro-" are its own: a caller's metadata
// of such a name is not sent, and does not reach a handler's metadata.
const (
	HeaderService     = "micro-service"  // Call, Open: the service that the call is for
	HeaderEndpoint    = "micro-endpoint" // Call, Open: what is called: "Say.Hello"
	HeaderError       = "micro-error"    // Reply, End, also a client's: the status error as JSON; absent on success
	HeaderContentType = "content-type"   // Call, Open, Reply: the body's codec
	HeaderTopic       = "micro-topic"    // Call: an event for subscribers of the topic
	HeaderID          = "micro-id"       // Call: go-micro's sequence number
)

// Reserved reports whether the framework keeps a header for itself, in whatever case it is written. What a peer sends under such a name is no metadata:
// no caller can claim an identity by it.
func Reserved(key string) bool {
	key = strings.ToLower(key)
	return strings.HasPrefix(key, "micro-") || key == HeaderContentType
}

// Metadata gives the part of a message's header that is its sender's, in storage of its own.
func Metadata(header metadata.MD) metadata.MD {
	return header.Except(func(key []byte) bool { // keys of an MD are lower case
		return bytes.HasPrefix(key, []byte("micro-")) || string(key) == HeaderContentType
	})
}

// Message is the unit of a Conn.
type Message struct {
	Kind Kind
	// ID ties a Reply to its Call; it is the sender of the Call who chooses it. A stream's messages carry the ID of its Open.
	ID uint32
	// Timeout is the time that is left for a Call or an Open; zero is none.
	Timeout time.Duration
	// Header is metadata and the framework's headers, in one flat section.
	Header metadata.MD
	// Body is the encoded value.
	Body []byte
	// Give, of a message given to Send, lets the connection keep the storage of Body, in place of copying it. Body is other
	// storage afterwards, of any content and length.
	Give bool
	// Lent, of a request given to a Caller, lets the connection read Body while it is writing it, which may be after Call
	// has returned, in place of copying it. Call makes it false where it has done with Body; else Body is not to be changed
	// any more.
	Lent bool
}

// Reset empties m for the next use and keeps the storage of its body and header.
func (m *Message) Reset() {
	*m = Message{Header: m.Header[:0], Body: m.Body[:0]}
}

// Errors of transports, to be asked for with [errors.Is]. Which of them an error wraps decides whether a call may be
// sent again: see NotSent.
var (
	// ErrNotSent: no byte of the message reached the peer. The call may go to another node.
	ErrNotSent = errors.New("transport: not sent")
	// ErrTooLarge: the message is over its limit. The connection lives on.
	ErrTooLarge = errors.New("transport: message too large")
	// ErrProtocol: the peer speaks something else, or broke the protocol. The connection is closed.
	ErrProtocol = errors.New("transport: protocol error")
	// ErrTaken: another listens at the address, which is a name. Where it is a host and a port, the system's error says it.
	ErrTaken = errors.New("transport: address already in use")
	// ErrClosed: the connection or the listener was closed by this side.
	ErrClosed = errors.New("transport: closed")
)

// Transport makes connections. Its methods may be called concurrently.
type Transport interface {
	// Dial connects to addr. Its errors wrap ErrNotSent. ctx bounds the dialling alone.
	Dial(ctx context.Context, addr string) (Conn, error)
	// Listen takes addr and returns at once. Port 0 is any free port: ask Addr. ctx bounds the listening's set-up alone.
	Listen(ctx context.Context, addr string) (Listener, error)
}

// Schemed is what a Transport offers that nodes name in their records, under registry.MetaTransport, so that clients choose it
// for them.
type Schemed interface {
	// Scheme is the scheme of URLs that open such a Transport: "http".
	Scheme() string
}

// Polyglot is what a Transport offers that also dials nodes of a protocol which is not its own, by an address that begins with
// it: "mucp://10.0.0.5:8080". A node's record names the protocol under registry.MetaProtocol.
type Polyglot interface {
	// Speaks reports whether Dial takes addresses of a protocol.
	Speaks(protocol string) bool
}

// Named is what a Transport offers whose addresses are names that a service may choose, and no hosts and ports.
type Named interface {
	// CheckName tells what is wrong with a name that cannot be an address.
	CheckName(addr string) error
}

// Listener yields the connections of peers.
type Listener interface {
	// Accept waits for the next connection. It returns ErrClosed after Close, and only then an error: a failing
	// connection is the listener's to log and drop.
	Accept() (Conn, error)
	// Addr is the address that a peer dials.
	Addr() string
	// Close stops accepting, frees the address, and returns when the listener's own goroutines have ended. Connections
	// that were accepted live on; those that were not are closed.
	io.Closer
}

// Conn carries messages in order. Send may be called concurrently, also with Recv; Recv by one goroutine at a time.
type Conn interface {
	// Send sends m whole, or fails. m is not retained. An error that wraps ErrNotSent or ErrTooLarge does not harm the
	// connection. When ctx ends while m is partly written, Send returns with ctx's error; the backend takes the part
	// back, and the error wraps ErrNotSent, or goes on to send m by itself. After any other error the connection is
	// closed.
	Send(ctx context.Context, m *Message) error
	// Recv waits for the next message and reads it into m, whose storage it reuses. io.EOF says that the peer closed the
	// connection between two messages, io.ErrUnexpectedEOF within one. The end of ctx does not break the connection.
	// Nor does an error that wraps ErrTooLarge: m then has the Kind, ID and Header of the message that was skipped.
	// A Ping is answered by the Conn, and not yielded; Recv must be called for that.
	Recv(ctx context.Context, m *Message) error
	// RemoteAddr is the peer's address.
	RemoteAddr() string
	// Close breaks the connection and is safe to call twice. Pending Send and Recv return ErrClosed.
	io.Closer
}

// Caller is what a Conn offers that carries unary calls itself, at less cost than through Send and Recv. A client asks
// a Conn for it before it reads from the Conn, and then uses only one of the two ways. Its methods may be called
// concurrently.
type Caller interface {
	// Call sends req and reads its answer into rsp, whose storage it reuses. req is not retained. req.Timeout, where it is
	// above zero, bounds the call from the start of Call on, and so does ctx's deadline: the earlier counts, and travels
	// with the call. The end of either gives context.DeadlineExceeded, or ctx's own error. The answer's HeaderError is not
	// looked at. The error wraps ErrNotSent where the peer has seen nothing.
	Call(ctx context.Context, req, rsp *Message) error
	// Usable reports whether the connection takes new calls: not when the server is going away, nor after its end.
	Usable() bool
	// CloseIdle closes the connection unless a call is under way, and reports whether it is closed. A Call that comes at
	// the same moment fails with ErrNotSent.
	CloseIdle() bool
}

// Unheard is what a client's Conn offers on which a stream counts as open without a word of the server, and whose peers may know no other
// content type than that of the messages: gRPC's. A client that was not told the content type then opens a stream with the first message,
// whose type tells it.
type Unheard interface {
	// AwaitOpen keeps room for a stream that is opened later. Its error wraps ErrNotSent: the connection takes none.
	AwaitOpen() error
}

// CallHandler answers a unary call: it reads req and fills rsp's Header and Body, appending to their storage, which is used for
// later answers. remote is the peer's address. req is valid until it returns. ctx ends when the caller is known to have gone, and
// when the Listener is closed.
type CallHandler func(ctx context.Context, remote string, req, rsp *Message)

// Answerable is what the ctx of a CallHandler is where the caller can be answered before the CallHandler returns: that one may
// then run the call itself, and need not leave it to a goroutine so as to answer in time. It is valid until the CallHandler
// returns.
type Answerable interface {
	context.Context
	// Request is the same context, and may be kept.
	Request() context.Context
	// Answer answers the call with rsp, in place of what the CallHandler gives, and returns when that is written. The connection
	// takes no other call until the CallHandler has returned, and is closed then. It is called once, by any goroutine, and
	// returns before the CallHandler does.
	Answer(rsp *Message)
}

// CallServer is what a Listener offers that serves unary calls itself. A server gives it the handler before the first
// Accept; Accept then yields the connections that carry something else: streams.
type CallServer interface {
	ServeCalls(h CallHandler)
}

// EndpointServer is what a Listener offers whose protocol writes the names of endpoints otherwise, or tells no call from a stream:
// gRPC, and HTTP as go-micro speaks it. A server gives it before the first Accept what it serves.
type EndpointServer interface {
	ServeEndpoints(e Endpoints)
}

// Endpoints is what a server serves. Its methods may be called concurrently.
type Endpoints interface {
	// Service is the name of the service.
	Service() string
	// Lookup reports whether there is an endpoint of that name, and whether it streams.
	Lookup(name string) (stream, known bool)
	// Names gives the endpoints' names, "Say.Hello", sorted.
	Names() []string
}

// Shutdowner is what a Listener offers whose connections can be drained. Shutdown stops accepting, tells the peers
// (GoAway), and returns when each connection has become idle and was closed, or with ctx's error.
type Shutdowner interface {
	Shutdown(ctx context.Context) error
}

// NotSent reports whether err says that the peer has seen nothing of the message.
func NotSent(err error) bool { return errors.Is(err, ErrNotSent) }

// Opener opens a transport by URL.
type Opener = opener.Func[Transport]

// Openers maps URL schemes to transports.
type Openers = opener.Set[Transport]
