package server

import (
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// wrapped is the envelope of a stream of go-micro's clients, who have each message in one: theirs is a call, and the server's the answer
// to one. Nobody goes by the ids.
type wrapped struct {
	codec.Envelope
	endpoint string
	asked    []byte // a call, which the server's messages are made answers to
}

// wrap has the stream that m opens have its messages in the envelope of its content type, where its client is one of go-micro's: only in
// their dialect is a stream's end a message, too, as which they want one.
func (rt *route) wrap(m *transport.Message) (*wrapped, error) {
	if rt.envelope == nil {
		return nil, nil
	}
	values := rt.envelope.Values()
	if id, _ := m.Header.Bytes(transport.HeaderID); len(id) == 0 {
		rt.breaks(status.New(status.UnsupportedMedia, "%s is for calls: a stream's messages are %s", rt.contentType, values.ContentType()))
		return nil, nil
	}
	asked, err := rt.envelope.AppendRequest(nil, rt.name, 0, nil)
	if err != nil {
		return nil, err
	}
	rt.codec = values
	return &wrapped{Envelope: rt.envelope, endpoint: rt.name, asked: asked}, nil
}

// value gives the body in a message of the client's, in memory of its own.
func (w *wrapped) value(data []byte) ([]byte, error) {
	t := taken{wrapped: w}
	_ = w.Answer(nil, data, &t)
	switch {
	case t.err != nil:
		return nil, t.err
	case t.calls != 1:
		return nil, status.New(status.InvalidArgument, "the message is not one of %s", w.ContentType())
	}
	return t.body, nil
}

// message gives a message of the server's with a body.
func (w *wrapped) message(body []byte) []byte { return w.Answer(nil, w.asked, given{body: body}) }

// taken keeps the body of a call.
type taken struct {
	*wrapped
	calls int
	body  []byte
	err   error
}

func (t *taken) Call(endpoint string, body []byte) ([]byte, error) {
	if endpoint != "" && endpoint != t.endpoint {
		t.err = status.New(status.InvalidArgument, "the stream is one of endpoint %.100q, and the message names %.100q", t.endpoint, endpoint)
	}
	t.calls++
	t.body = append([]byte{}, body...)
	return nil, nil
}

func (*taken) Fields(string) []string { return nil }

// given answers a call with a body.
type given struct{ body []byte }

func (g given) Call(string, []byte) ([]byte, error) { return g.body, nil }

func (given) Fields(string) []string { return nil }
