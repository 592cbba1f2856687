package micro_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/bson"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/msgpack"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// Parcel has what JSON has no form of its own for.
type Parcel struct {
	Label  string         `json:"label"`
	Weight int64          `json:"weight,omitempty"`
	Data   []byte         `json:"data,omitempty"`
	Sent   time.Time      `json:"sent,omitzero"`
	More   map[string]any `json:"more,omitempty"`
}

func (p *Parcel) equal(other *Parcel) bool {
	return p.Label == other.Label && p.Weight == other.Weight && bytes.Equal(p.Data, other.Data) && p.Sent.Equal(other.Sent) && p.More["n"] == other.More["n"]
}

func newParcel() *Parcel {
	return &Parcel{Label: "a", Weight: 1 << 60, Data: []byte{0, 255}, Sent: time.UnixMilli(1234), More: map[string]any{"n": int64(5)}}
}

// codecs are those that a service has by its options alone.
func codecs() map[string]struct{ strict, lenient codec.Codec } {
	return map[string]struct{ strict, lenient codec.Codec }{
		msgpack.ContentType: {msgpack.Strict(), msgpack.New()},
		msgpack.Registered:  {codec.Alias(msgpack.Strict(), msgpack.Registered), codec.Alias(msgpack.New(), msgpack.Registered)},
		bson.ContentType:    {bson.Strict(), bson.New()},
	}
}

// TestCodecs calls, streams and publishes in each codec, over frames; and calls over plain HTTP.
func TestCodecs(t *testing.T) {
	t.Parallel()
	for contentType, c := range codecs() {
		t.Run(contentType, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t)
			s, up := newService(t, reg, micro.ServerOptions(server.Codecs(codec.Set{json.Strict(), c.strict})))
			took := make(chan *Parcel, 1)
			seen := make(chan string, 1)
			err := errors.Join(
				micro.Handle(s, "Parcel.Echo", func(_ context.Context, p *Parcel) (*Parcel, error) { return p, nil }),
				micro.Handle(s, "Parcel.Weigh", func(_ context.Context, p *Parcel) (*int64, error) { return &p.Weight, nil }),
				micro.HandleBidi(s, "Parcel.Each", func(_ context.Context, st *server.Stream[Parcel, Parcel]) error {
					seen <- st.Call().ContentType()
					for p, err := range st.All() {
						if err = errors.Join(err, st.Send(p)); err != nil {
							return err
						}
					}
					return nil
				}),
				micro.Subscribe(s, "parcel.sent", func(_ context.Context, p *Parcel) error { took <- p; return nil }),
			)
			if err != nil {
				t.Fatal(err)
			}
			run(t, s)
			<-up
			caller, err := micro.New("caller", micro.Registry(reg), micro.ClientOptions(client.WithCodecs(codec.Set{c.lenient, json.New()})))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = caller.Close() })

			callCodec(t, caller.Client())
			streamCodec(t, caller.Client(), contentType)
			if got := <-seen; got != contentType {
				t.Errorf("the stream came as %s", got)
			}
			report, err := caller.Client().Publish(t.Context(), "parcel.sent", newParcel())
			if err != nil || len(report.Deliveries) != 1 || report.Deliveries[0].Err != nil {
				t.Fatalf("published: %+v, %v", report, err)
			}
			if got := <-took; !got.equal(newParcel()) {
				t.Errorf("the message came as %+v", got)
			}
			nodes, err := reg.Get(t.Context(), "greeter")
			if err != nil {
				t.Fatal(err)
			}
			plainCodec(t, "http://"+nodes[0].Address, contentType, c.lenient)
		})
	}
}

func callCodec(t *testing.T, c *client.Client) {
	t.Helper()
	if got, err := client.Call[Parcel](t.Context(), c, "greeter", "Parcel.Echo", newParcel()); err != nil || !got.equal(newParcel()) {
		t.Errorf("call: got %+v, %v", got, err)
	}
	if got, err := client.Call[int64](t.Context(), c, "greeter", "Parcel.Weigh", newParcel()); err != nil || *got != 1<<60 {
		t.Errorf("a call that answers a number: got %v, %v", got, err)
	}
	// The same service takes JSON, and answers in it.
	if got, err := client.Call[Parcel](t.Context(), c, "greeter", "Parcel.Echo", newParcel(), client.ContentType(json.ContentType)); err != nil || got.Label != "a" {
		t.Errorf("call in JSON: got %+v, %v", got, err)
	}
	var st *status.Error
	_, err := client.Call[Parcel](t.Context(), c, "greeter", "Parcel.Echo", map[string]any{"lable": "a"})
	if !errors.As(err, &st) || st.Code != status.InvalidArgument || !strings.Contains(st.Detail, `unknown field "lable"`) {
		t.Errorf("an unknown field: %v", err)
	}
	if err := c.Call(t.Context(), "greeter", "Parcel.Echo", make(chan int), nil); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("a channel: %v", err)
	}
}

func streamCodec(t *testing.T, c *client.Client, contentType string) {
	t.Helper()
	st, err := c.Stream(t.Context(), "greeter", "Parcel.Each", client.ContentType(contentType))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for range 3 {
		var got Parcel
		if err := errors.Join(st.Send(newParcel()), st.Recv(&got)); err != nil || !got.equal(newParcel()) {
			t.Errorf("stream: got %+v, %v", got, err)
		}
	}
	if err := st.CloseSend(); err != nil {
		t.Error(err)
	}
	if err := st.Recv(new(Parcel)); !errors.Is(err, io.EOF) {
		t.Errorf("the stream's end: %v", err)
	}
}

// plainCodec posts as curl does.
func plainCodec(t *testing.T, url, contentType string, c codec.Codec) {
	t.Helper()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	post := func(body []byte) (*http.Response, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/Parcel.Echo", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		rsp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer rsp.Body.Close()
		answer, err := io.ReadAll(rsp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return rsp, answer
	}
	body, err := c.Append(nil, newParcel())
	if err != nil {
		t.Fatal(err)
	}
	rsp, answer := post(body)
	if rsp.StatusCode != http.StatusOK || rsp.Header.Get("Content-Type") != contentType || !bytes.Equal(answer, body) {
		t.Errorf("plain HTTP: %s, %s, %q, want the same body", rsp.Status, rsp.Header.Get("Content-Type"), answer)
	}
	rsp, answer = post(append(body, 0))
	if rsp.StatusCode != http.StatusBadRequest || !bytes.Contains(answer, []byte("request does not decode: codec/")) {
		t.Errorf("plain HTTP with a byte too many: %s, %s", rsp.Status, answer)
	}
}

// TestCodecThatIsNotThere: a service speaks what it was given, and says so.
func TestCodecThatIsNotThere(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	s, up := newService(t, reg)
	if err := micro.Handle(s, "Say.Hello", hello); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	<-up
	caller, err := micro.New("caller", micro.Registry(reg), micro.ClientOptions(client.WithCodecs(codec.Set{msgpack.New()})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })
	var st *status.Error
	_, err = client.Call[Greeting](t.Context(), caller.Client(), "greeter", "Say.Hello", &Hello{Name: "x"})
	if !errors.As(err, &st) || st.Code != status.UnsupportedMedia || !strings.Contains(st.Detail, "want one of application/json, application/protobuf, application/octet-stream") {
		t.Errorf("got %v", err)
	}
}
