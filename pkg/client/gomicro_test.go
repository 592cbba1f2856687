package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	codecjson "github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/msgpack"
	codecproto "github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/codec/protorpc"
	"github.com/cb02dfca/micro/pkg/registry"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// said and count are what servers/gomicro answers and takes.
type said struct {
	Message string `json:"message"`
}

type count struct {
	To    int `json:"to"`
	Pause int `json:"pause"`
}

// theirs is a service of go-micro v5.30 by the name greeter, in a process of its own, and a client that finds it in a registry, whose record
// is as go-micro's are.
func theirs(t *testing.T) (*testserver.Peer, *client.Client) {
	t.Helper()
	peer := testserver.GoMicro(t, "service", "memory:", "greeter", "greetings")
	var address string
	if err := json.Unmarshal([]byte(<-peer.Told("at")), &address); err != nil {
		t.Fatal(err)
	}
	return peer, finder(t, address)
}

// finder gives a client that finds the nodes of greeter at addresses, as go-micro registers them.
func finder(t *testing.T, addresses ...string) *client.Client {
	t.Helper()
	reg := registrymemory.New()
	t.Cleanup(func() { reg.Close() })
	for i, address := range addresses {
		n := registry.Node{ID: "greeter-" + strconv.Itoa(i), Service: "greeter", Version: "latest", Address: address,
			Metadata: map[string]string{"broker": "http", "protocol": "mucp", "registry": "memory", "server": "mucp", "transport": "http"}}
		if err := reg.Register(t.Context(), n, 0); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := http.New(http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.WithTransport(tr), client.WithRegistry(reg), client.WithCodecs(codec.Set{
		codecproto.New(), msgpack.New(), jsonrpc.New(codecjson.New()), protorpc.New(codecproto.New()), codecjson.New(),
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestGoMicroCalls: a service of go-micro is called in each of its content types, over connections that are used again, by many at once.
func TestGoMicroCalls(t *testing.T) {
	t.Parallel()
	_, c := theirs(t)
	for _, contentType := range []string{"application/json", "application/json-rpc"} {
		var work sync.WaitGroup
		for i := range 20 {
			work.Go(func() {
				for j := range 5 {
					name := fmt.Sprint("Ada ", i, " ", j)
					rsp, err := client.Call[said](t.Context(), c, "greeter", "Say.Hello", &Hello{Name: name}, client.ContentType(contentType), client.Header("greeting", "Hi"))
					if err != nil || rsp.Message != "Hi "+name {
						t.Errorf("%s: %+v, %v", contentType, rsp, err)
					}
				}
			})
		}
		work.Wait()
	}
	in, err := structpb.NewStruct(map[string]any{"name": "Ada", "n": 12.5})
	if err != nil {
		t.Fatal(err)
	}
	for _, contentType := range []string{"application/json", "application/protobuf", "application/proto-rpc"} {
		var out structpb.Struct
		if err := c.Call(t.Context(), "greeter", "Say.Echo", in, &out, client.ContentType(contentType)); err != nil || out.GetFields()["n"].GetNumberValue() != 12.5 {
			t.Errorf("%s: %v, %v", contentType, &out, err)
		}
	}
	rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: "application/json", Body: []byte(`{"name":"Ada"}`)},
		client.Header("secret", "mine"))
	if err != nil || rsp.Header.Len() > 0 {
		t.Errorf("the request's headers came back as the answer's: %q, %v", rsp.Header, err)
	}
}

// TestGoMicroErrors: each form of error becomes a status; what it cannot take is not sent.
func TestGoMicroErrors(t *testing.T) {
	t.Parallel()
	_, c := theirs(t)
	for _, tt := range []struct {
		endpoint, name, contentType string
		want                        *status.Error
	}{
		{"Say.Hello", "", "application/json", &status.Error{ID: "says.hello", Code: 400, Detail: "no name", Remote: true}},
		{"Say.Hello", "", "application/json-rpc", &status.Error{ID: "says.hello", Code: 400, Detail: "no name", Remote: true}},
		{"Say.Hello", "plain", "application/json", &status.Error{Code: 500, Detail: "a plain error", Remote: true}},
		{"Say.Nope", "x", "application/json", &status.Error{Code: 500, Detail: "rpc: can't find method Nope", Remote: true}},
		{"Nope.Hello", "x", "application/json", &status.Error{Code: 500, Detail: "rpc: can't find service Nope", Remote: true}},
		{"Nope", "x", "application/json", &status.Error{Code: 500, Detail: "rpc: service/endpoint request ill-formed: Nope", Remote: true}},
	} {
		err := c.Call(t.Context(), "greeter", tt.endpoint, &Hello{Name: tt.name}, nil, client.ContentType(tt.contentType))
		e, ok := errors.AsType[*status.Error](err)
		if !ok || e.Error() != tt.want.Error() || e.Refused != tt.want.Refused || e.Remote != tt.want.Remote {
			t.Errorf("%s %q: %v, want %v", tt.endpoint, tt.name, err, tt.want)
		}
	}
	err := c.Call(t.Context(), "greeter", "Say.Hello", &Hello{Name: "x"}, nil, client.ContentType("application/msgpack"))
	if !errors.Is(err, errors.ErrUnsupported) || !transport.NotSent(err) || !strings.Contains(err.Error(), "application/json") {
		t.Errorf("a codec that go-micro has not got: %v", err)
	}
	begun := time.Now()
	err = c.Call(t.Context(), "greeter", "Say.Wait", &count{Pause: -1}, nil, client.ContentType("application/json"), client.Timeout(300*time.Millisecond))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 5*time.Second {
		t.Errorf("of a panic nothing is told: %v after %v", err, time.Since(begun))
	}
	if err := c.Call(t.Context(), "greeter", "Say.Hello", &Hello{Name: "x"}, nil, client.ContentType("application/json")); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// TestGoMicroStreams: a stream goes both ways, ends from either side, and with an error.
func TestGoMicroStreams(t *testing.T) {
	t.Parallel()
	peer, c := theirs(t)
	st, err := c.Stream(t.Context(), "greeter", "Say.Chat", client.Header("greeting", "Hi"))
	if err != nil {
		t.Fatal(err)
	}
	chat(t, st, "one", "two", "three")
	if err := st.CloseSend(); err != nil {
		t.Errorf("CloseSend: %v", err)
	}
	if err := st.Recv(&said{}); !errors.Is(err, io.EOF) {
		t.Errorf("after the end of both: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if left := <-peer.Told("left"); left != `"EOF"` {
		t.Errorf("the service saw the end as %s", left)
	}
	for last, want := range map[string]error{"finish": io.EOF, "fail": &status.Error{ID: "says.chat", Code: 403, Detail: "the stream is refused"}} {
		st, err := c.Stream(t.Context(), "greeter", "Say.Chat", client.Header("greeting", "Hi"))
		if err != nil {
			t.Fatal(err)
		}
		chat(t, st, "one")
		if err := st.Send(&Hello{Name: last}); err != nil {
			t.Error(err)
		}
		if err := st.Recv(&said{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", last, err, want)
		}
		if err := st.Recv(&said{}); !errors.Is(err, io.EOF) {
			t.Errorf("%s, after the end: %v", last, err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
	st, err = c.Stream(t.Context(), "greeter", "Nope.Chat")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Recv(&said{}); !errors.Is(err, &status.Error{Detail: "rpc: can't find service Nope"}) {
		t.Errorf("an endpoint that is not there: %v", err)
	}
	st.Close()
}

func chat(t *testing.T, st *client.Stream, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := st.Send(&Hello{Name: name}); err != nil {
			t.Fatal(err)
		}
		var rsp said
		if err := st.Recv(&rsp); err != nil || rsp.Message != "Hi "+name {
			t.Fatalf("%+v, %v", rsp, err)
		}
	}
}

// TestGoMicroServerStream: the second message of a stream is the request, and the service's messages come as it sends them.
func TestGoMicroServerStream(t *testing.T) {
	t.Parallel()
	_, c := theirs(t)
	st, err := c.Stream(t.Context(), "greeter", "Say.Count")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Send(&count{To: 5, Pause: 100}); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		var rsp struct{ N int }
		if err := st.Recv(&rsp); err != nil || rsp.N != n+1 {
			t.Fatalf("%+v, %v, want %d", rsp, err, n+1)
		}
	}
	if err := st.Recv(new(any)); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want io.EOF", err)
	}
}

// TestGoMicroCancelled: a caller that leaves a stream in the middle, or whose time is over, ends it in the service, too.
func TestGoMicroCancelled(t *testing.T) {
	t.Parallel()
	peer, c := theirs(t)
	ctx, cancel := context.WithCancel(t.Context())
	st, err := c.Stream(ctx, "greeter", "Say.Chat", client.Header("greeting", "Hi"))
	if err != nil {
		t.Fatal(err)
	}
	chat(t, st, "one")
	cancel()
	if err := st.Recv(&said{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Recv: %v", err)
	}
	st.Close()
	if left := <-peer.Told("left"); !strings.Contains(left, "the caller has left") {
		t.Errorf("the service saw the end as %s", left)
	}
	st, err = c.Stream(t.Context(), "greeter", "Say.Chat", client.Timeout(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Recv(&said{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Recv: %v", err)
	}
	st.Close()
	<-peer.Told("left")
}

// TestGoMicroDies: a call goes to the service that lives when the other has died, over whichever connection it would have gone.
func TestGoMicroDies(t *testing.T) {
	t.Parallel()
	addresses := make([]string, 2)
	peers := make([]*testserver.Peer, 2)
	for i := range peers {
		peers[i] = testserver.GoMicro(t, "service", "memory:", "greeter", "greetings")
		if err := json.Unmarshal([]byte(<-peers[i].Told("at")), &addresses[i]); err != nil {
			t.Fatal(err)
		}
	}
	c := finder(t, addresses...)
	call := func() error {
		return c.Call(t.Context(), "greeter", "Say.Hello", &Hello{Name: "x"}, nil, client.ContentType("application/json"))
	}
	for range 20 {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	peers[0].Kill()
	for range 20 {
		if err := call(); err != nil {
			t.Errorf("after a service has died: %v", err)
		}
	}
}

// TestMixedFleet: in a codec that go-micro has not got a call goes to one of ours, among nodes of both.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	tr, err := http.New(http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New("greeter", server.Codecs(codec.Set{msgpack.Strict()}))
	if err != nil {
		t.Fatal(err)
	}
	hello(s)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() { stop(); <-done })
	reg := registrymemory.New()
	defer reg.Close()
	for id, n := range map[string]registry.Node{
		"theirs": {Address: "127.0.0.1:1", Metadata: map[string]string{"protocol": "mucp", "transport": "http"}},
		"ours":   {Address: l.Addr(), Metadata: map[string]string{"protocol": "mucp", "transport": "http", "upgrade": "micro"}},
	} {
		n.ID, n.Service = id, "greeter"
		if err := reg.Register(t.Context(), n, 0); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(client.WithTransport(tr), client.WithRegistry(reg), client.WithCodecs(codec.Set{msgpack.New()}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 20 {
		if err := c.Call(t.Context(), "greeter", "Say.Hello", &Hello{Name: "x"}, nil); err != nil {
			t.Fatal(err)
		}
	}
}
