package micro_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/vom"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// Crate has what JSON tells less of.
type Crate struct {
	Label string
	Data  []byte
	Sent  time.Time
	Keys  map[[2]int8]bool `json:"-"`
	More  any
	Inner *Crate
}

func newCrate() *Crate {
	return &Crate{Label: "a", Data: []byte{0, 255}, Sent: time.UnixMilli(1234).UTC(), Keys: map[[2]int8]bool{{1, 2}: true}, More: []any{int8(1), 2.5}, Inner: &Crate{Label: "b"}}
}

// TestVOM calls, streams and publishes in VOM, over frames, and posts it over plain HTTP, to a service that speaks it by its
// options alone.
func TestVOM(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	s, up := newService(t, reg, micro.ServerOptions(server.Codecs(codec.Set{json.Strict(), vom.New()})))
	took := make(chan *Crate, 1)
	err := errors.Join(
		micro.Handle(s, "Crate.Echo", func(_ context.Context, c *Crate) (*Crate, error) { return c, nil }),
		micro.Handle(s, "Crate.Label", func(_ context.Context, c *Crate) (*string, error) { return &c.Label, nil }),
		micro.HandleBidi(s, "Crate.Each", func(_ context.Context, st *server.Stream[Crate, Crate]) error {
			for c, err := range st.All() {
				if err = errors.Join(err, st.Send(c)); err != nil {
					return err
				}
			}
			return nil
		}),
		micro.Subscribe(s, "crate.sent", func(_ context.Context, c *Crate) error { took <- c; return nil }),
	)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	<-up
	caller, err := micro.New("caller", micro.Registry(reg), micro.ClientOptions(client.WithCodecs(codec.Set{vom.New(), json.New()})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })

	c := caller.Client()
	if got, err := client.Call[Crate](t.Context(), c, "greeter", "Crate.Echo", newCrate()); err != nil || !reflect.DeepEqual(got, newCrate()) {
		t.Errorf("call: got %+v, %v", got, err)
	}
	if got, err := client.Call[string](t.Context(), c, "greeter", "Crate.Label", newCrate()); err != nil || *got != "a" {
		t.Errorf("a call that answers a text: got %v, %v", got, err)
	}
	if got, err := client.Call[Crate](t.Context(), c, "greeter", "Crate.Echo", map[string]string{"Label": "a"}, client.ContentType(json.ContentType)); err != nil || got.Label != "a" {
		t.Errorf("call in JSON: got %+v, %v", got, err)
	}
	if got, err := client.Call[server.Info](t.Context(), c, "greeter", server.DebugInfo, nil, client.ContentType(vom.ContentType)); err != nil || len(got.Endpoints) == 0 {
		t.Errorf("what the service tells of itself: got %+v, %v", got, err)
	}
	var st *status.Error
	if _, err := client.Call[Crate](t.Context(), c, "greeter", "Crate.Echo", []int{1}); !errors.As(err, &st) || st.Code != status.InvalidArgument || !strings.Contains(st.Detail, "codec/vom: at offset") {
		t.Errorf("a list: %v", err)
	}
	if err := c.Call(t.Context(), "greeter", "Crate.Echo", make(chan int), nil); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("a channel: %v", err)
	}
	report, err := c.Publish(t.Context(), "crate.sent", newCrate())
	if err != nil || report.Delivered() != 1 {
		t.Fatalf("published: %+v, %v", report, err)
	}
	if got := <-took; !reflect.DeepEqual(got, newCrate()) {
		t.Errorf("the message came as %+v", got)
	}
	streamVOM(t, c)
	nodes, err := reg.Get(t.Context(), "greeter")
	if err != nil {
		t.Fatal(err)
	}
	postVOM(t, "http://"+nodes[0].Address)
}

func streamVOM(t *testing.T, c *client.Client) {
	t.Helper()
	st, err := c.Stream(t.Context(), "greeter", "Crate.Each", client.ContentType(vom.ContentType))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for range 3 {
		var got Crate
		if err := errors.Join(st.Send(newCrate()), st.Recv(&got)); err != nil || !reflect.DeepEqual(&got, newCrate()) {
			t.Errorf("stream: got %+v, %v", got, err)
		}
	}
	if err := st.CloseSend(); err != nil {
		t.Error(err)
	}
	if err := st.Recv(new(Crate)); !errors.Is(err, io.EOF) {
		t.Errorf("the stream's end: %v", err)
	}
}

// postVOM posts as curl does.
func postVOM(t *testing.T, url string) {
	t.Helper()
	body, err := vom.New().Append(nil, newCrate())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/Crate.Echo", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", vom.ContentType)
	rsp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	answer, err := io.ReadAll(rsp.Body)
	if err != nil || rsp.StatusCode != http.StatusOK || rsp.Header.Get("Content-Type") != vom.ContentType || !bytes.Equal(answer, body) {
		t.Errorf("plain HTTP: %s, %s, %q, %v, want the same body", rsp.Status, rsp.Header.Get("Content-Type"), answer, err)
	}
}
