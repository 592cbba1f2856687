package http_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/http"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/status"
)

// readRequest reads one request whole.
func readRequest(c net.Conn) error {
	r, err := nethttp.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err
}

// goMicro is a subscriber as go-micro's are: it answers 200, whatever happens.
func goMicro(t *testing.T) (address string, requests <-chan *nethttp.Request, bodies <-chan []byte) {
	rs, bs := make(chan *nethttp.Request, 100), make(chan []byte, 100)
	s := httptest.NewServer(nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		rs <- r
		bs <- body
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), rs, bs
}

// What goes out is, apart from the keys' order in HTTP, what a go-micro v5 publisher was seen to send.
func TestPublishAsGoMicroDoes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"v5-json", "v5-proto"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := capture(t, name)
			var e struct {
				Header map[string]string
				Body   []byte
			}
			if err := json.Unmarshal(want.body, &e); err != nil {
				t.Fatal(err)
			}
			reg := newRegistry(t)
			address, requests, bodies := goMicro(t)
			register(t, reg, "greeter.events-33d511ab-f383-41b6-86cd-f22b6729c68b", address, "greeter.events", "ff.http.broadcast")
			b := newBroker(t, reg, http.Options{})
			r, err := b.Publish(t.Context(), &broker.Message{
				Topic: "greeter.events", ID: e.Header["Micro-ID"],
				Header: metadata.Of("content-type", e.Header["Content-Type"]), Body: e.Body,
			})
			if err != nil || r.Err() != nil {
				t.Fatal(err, r.Err())
			}
			if got := await(t, "the body", bodies); !bytes.Equal(got, want.body) {
				t.Errorf("body\n%s\nwant\n%s", got, want.body)
			}
			got := await(t, "the request", requests)
			if got.Method != "POST" || got.RequestURI != want.RequestURI || got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %s, content type %q, want POST %s", got.Method, got.RequestURI, got.Header.Get("Content-Type"), want.RequestURI)
			}
			if d := only(t, r); d.Subscriber != "greeter.events-33d511ab-f383-41b6-86cd-f22b6729c68b" || d.Queue != "" {
				t.Errorf("delivery %+v", d)
			}
		})
	}
}

type captured struct {
	*nethttp.Request
	body []byte
}

// capture reads a request that a real go-micro publisher sent.
func capture(t *testing.T, name string) captured {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name + ".http")
	if err != nil {
		t.Fatal(err)
	}
	r, err := nethttp.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return captured{r, body}
}

// TestReusedPort: a subscriber was killed, and before its record lapsed another program got the port, which says 200 to
// anything.
func TestReusedPort(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	address, requests, _ := goMicro(t)
	for id, queue := range map[string]string{"alone-1": "ff.http.broadcast", "member-1": "mail"} {
		err := reg.Register(t.Context(), registry.Node{
			ID: id, Service: registry.BrokerService, Version: queue, Address: address,
			Metadata: map[string]string{"broker": "http", "topic": "topic", "ack": "true"},
		}, 0)
		if err != nil {
			t.Fatal(err)
		}
	}
	b := newBroker(t, reg, http.Options{})
	handled := make(chan struct{}, 100)
	subscribe(t, b, "topic", func(context.Context, *broker.Message) error { handled <- struct{}{}; return nil }, broker.Queue("mail"))
	for range 20 { // the member that is tried first is drawn
		r := publish(t, b, "topic", "x")
		await(t, "the queue's other member", handled)
		if len(r.Deliveries) != 2 || r.Delivered() != 1 || !isUnavailable(r.Err()) {
			t.Fatalf("deliveries %+v, want that of the queue well, and the other not", r.Deliveries)
		}
	}
	if n := len(requests); n < 21 {
		t.Errorf("the other program got %d requests, want 20 and some of the queue's", n)
	}
}

func TestContentTypeIsAlwaysSent(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	address, _, bodies := goMicro(t)
	register(t, reg, "topic-1", address, "topic", "ff.http.broadcast")
	b := newBroker(t, reg, http.Options{})
	if _, err := b.Publish(t.Context(), &broker.Message{Topic: "topic", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	want := `{"Header":{"Content-Type":"application/octet-stream","Micro-ID":"1","Micro-Topic":"topic"},"Body":""}`
	if got := string(await(t, "the body", bodies)); got != want {
		t.Errorf("body %s, want %s", got, want)
	}
}

func TestGoMicroQueue(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	var got [3]<-chan *nethttp.Request
	for i := range got {
		var address string
		address, got[i], _ = goMicro(t)
		version := "mail"
		if i == 2 {
			version = "ff.http.broadcast"
		}
		register(t, reg, fmt.Sprint("topic-", i), address, "topic", version)
	}
	if err := reg.Register(t.Context(), registry.Node{ID: "other", Service: registry.BrokerService, Address: deadAddress(t),
		Metadata: map[string]string{"broker": "nats", "topic": "topic"}}, 0); err != nil {
		t.Fatal(err)
	}
	b := newBroker(t, reg, http.Options{})
	for range 40 {
		if r := publish(t, b, "topic", "x"); len(r.Deliveries) != 2 || r.Err() != nil {
			t.Fatalf("%+v", r)
		}
	}
	if a, b, all := len(got[0]), len(got[1]), len(got[2]); a+b != 40 || a == 0 || b == 0 || all != 40 {
		t.Errorf("queue members got %d and %d, the other %d, want 40 together and 40", a, b, all)
	}
}

func TestDeadNode(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	for i := range 3 {
		register(t, reg, fmt.Sprint("dead-", i), deadAddress(t), "topic", "mail")
	}
	register(t, reg, "dead-alone", deadAddress(t), "topic", "ff.http.broadcast")
	b := newBroker(t, reg, http.Options{})
	for _, d := range publish(t, b, "topic", "x").Deliveries {
		if !isUnavailable(d.Err) || !strings.HasPrefix(d.Subscriber, "dead-") {
			t.Errorf("delivery %+v, want ErrUnavailable of a dead one", d)
		}
	}
	var handled atomic.Int32
	subscribe(t, b, "topic", func(context.Context, *broker.Message) error { handled.Add(1); return nil }, broker.Queue("mail"))
	for range 20 {
		r := publish(t, b, "topic", "x")
		if len(r.Deliveries) != 2 || r.Delivered() != 1 {
			t.Fatalf("%+v, want the queue's well and the dead one's not", r.Deliveries)
		}
	}
	if handled.Load() != 20 {
		t.Errorf("%d handled, want 20", handled.Load())
	}
}

type garbage struct {
	name, answer string
	code         status.Code // 0: acknowledged; -1: an error of no code, which may have been handled
	then         func(net.Conn)
}

func garbageAnswers(elsewhere string) []garbage {
	return []garbage{
		{"200", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, nil},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", 0, nil},
		{"200 of HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", 0, nil},
		{"200 with a body that does not end", "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nabc", 0, drainConn},
		{"nothing", "", -1, nil},
		{"no HTTP", "what?\r\n\r\n", -1, nil},
		{"half a status line", "HTTP/1.1 20", -1, nil},
		{"half a header", "HTTP/1.1 200 OK\r\nContent-Le", -1, nil},
		{"a huge header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", -1, drainConn},
		{"redirect", "HTTP/1.1 307 Temporary Redirect\r\nLocation: " + elsewhere + "\r\nContent-Length: 0\r\n\r\n", 500, nil},
		{"500 with HTML", "HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<b>no</b>", 500, nil},
		{"502 of a proxy", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", 502, nil},
		{"404 of another program", "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope", 404, nil},
		{"500 with a long body", "HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("{", 1_000_000), 500, nil},
		{"500 with a body cut off", "HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\n{\"code\":", 500, nil},
		{"a status error", "HTTP/1.1 500 Oops\r\nContent-Length: 27\r\n\r\n{\"code\":422,\"detail\":\"odd\"}", 422, nil},
		{"a code out of range", "HTTP/1.1 500 Oops\r\nContent-Length: 25\r\n\r\n{\"code\":200,\"detail\":\"x\"}", 500, nil},
		{"upgrade", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 500, nil},
	}
}

func TestGarbageAnswers(t *testing.T) {
	t.Parallel()
	target := httptest.NewServer(nethttp.HandlerFunc(func(nethttp.ResponseWriter, *nethttp.Request) { t.Error("a redirect was followed") }))
	t.Cleanup(target.Close)
	for _, test := range garbageAnswers(target.URL) {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			testGarbage(t, test)
		})
	}
}

// testGarbage has a queue of a good member and one that answers garbage: what may have been handled is not sent again.
func testGarbage(t *testing.T, test garbage) {
	address, requests := rawServer(t, func(c net.Conn) {
		// The server closes: an answer that does not say so would be a race with the next message.
		_, _ = io.WriteString(c, strings.Replace(test.answer, "\r\n", "\r\nConnection: close\r\n", 1))
		if test.then != nil {
			test.then(c)
		}
	})
	reg := newRegistry(t)
	register(t, reg, "garbage", address, "topic", "mail")
	b := newBroker(t, reg, http.Options{})
	var good atomic.Int32
	subscribe(t, b, "topic", func(context.Context, *broker.Message) error { good.Add(1); return nil }, broker.Queue("mail"))
	const n = 12
	for range n {
		d := only(t, publish(t, b, "topic", "x"))
		if d.Subscriber == "garbage" {
			checkGarbage(t, d.Err, test.code)
		} else if d.Err != nil {
			t.Errorf("the good member: %v", d.Err)
		}
	}
	if got := good.Load() + requests.Load(); got != n {
		t.Errorf("%d messages were sent %d times: one that may have been handled went to another member too", n, got)
	}
}

func drainConn(c net.Conn) { drain(c) }

func checkGarbage(t *testing.T, err error, code status.Code) {
	t.Helper()
	var e *status.Error
	switch {
	case code == 0 && err != nil:
		t.Errorf("error %v, want none", err)
	case code == -1 && (err == nil || errors.As(err, &e) || isUnavailable(err)):
		t.Errorf("error %v, want that nothing is known", err)
	case code > 0 && (!errors.As(err, &e) || e.Code != code || !e.Remote):
		t.Errorf("error %v, want code %d", err, code)
	}
	if err != nil && len(err.Error()) > 2000 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

// A subscriber that never answers ends with the publisher's context, and holds up nobody.
func TestHungSubscribers(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	for i := range 10 {
		address, _ := rawServer(t, drainConn)
		register(t, reg, fmt.Sprint("hung-", i), address, "topic", "ff.http.broadcast")
	}
	b := newBroker(t, reg, http.Options{Parallel: 2})
	handled := make(chan struct{}, 200)
	for range 100 {
		subscribe(t, b, "topic", func(context.Context, *broker.Message) error { handled <- struct{}{}; return nil })
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reports := make(chan broker.Report, 1)
	go func() {
		r, err := b.Publish(ctx, &broker.Message{Topic: "topic"})
		if err != nil {
			t.Error(err)
		}
		reports <- r
	}()
	for range 100 {
		await(t, "each of 100 subscribers has it beside the hung ones", handled)
	}
	// The handlers' answers may be under way still, so a good one may be cut too; the hung ones always are.
	cancel()
	r := await(t, "Publish returns", reports)
	if len(r.Deliveries) != 110 {
		t.Fatalf("%d deliveries, want 110", len(r.Deliveries))
	}
	for _, d := range r.Deliveries {
		if strings.HasPrefix(d.Subscriber, "hung-") && !errors.Is(d.Err, context.Canceled) {
			t.Errorf("delivery %+v, want context.Canceled", d)
		}
	}
}

// A subscriber that dies while its handler runs: the message may have been handled, and is not sent again.
func TestKilledWhileHandling(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	doomed, other := newBroker(t, reg, http.Options{}), newBroker(t, reg, http.Options{})
	p := newPort(t)
	if err := doomed.Attach(p); err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int32
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	handle := func(context.Context, *broker.Message) error {
		runs.Add(1)
		entered <- struct{}{}
		<-leave
		return nil
	}
	subscribe(t, doomed, "topic", handle, broker.Queue("mail"))
	node := onlyNode(t, reg)
	reports := make(chan broker.Report, 1)
	var wg sync.WaitGroup
	wg.Go(func() { reports <- publish(t, other, "topic", "x") })
	await(t, "the handler runs", entered)
	_ = p.Listener.Close()
	p.CloseClientConnections()
	d := only(t, await(t, "Publish returns", reports))
	if d.Err == nil || isUnavailable(d.Err) || d.Subscriber != node.ID {
		t.Errorf("delivery %+v, want an error that says that it may have been handled", d)
	}
	wg.Wait()
	close(leave)
	// Now its port is closed while its record stands.
	if d := only(t, publish(t, other, "topic", "y")); !isUnavailable(d.Err) {
		t.Errorf("error %v, want ErrUnavailable", d.Err)
	}
	if runs.Load() != 1 {
		t.Errorf("the handler ran %d times, want once", runs.Load())
	}
}

func TestRegistryAway(t *testing.T) {
	t.Parallel()
	reg := newFaulty(t)
	b := newBroker(t, reg, http.Options{})
	reg.set(func() { reg.watchErr = errAway })
	if _, err := b.Publish(t.Context(), &broker.Message{Topic: "topic"}); !isUnavailable(err) || !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("first Publish while the registry is away: %v, want ErrUnavailable", err)
	}
	reg.set(func() { reg.watchErr = nil })
	var handled atomic.Int32
	subscribe(t, b, "topic", func(context.Context, *broker.Message) error { handled.Add(1); return nil })
	eventually(t, "the registry is watched again", func() bool {
		_, err := b.Publish(t.Context(), &broker.Message{Topic: "topic"})
		return err == nil
	})
	if handled.Load() != 1 {
		t.Errorf("%d handled, want 1", handled.Load())
	}
	other := newBroker(t, reg.Registry, http.Options{})
	subscribe(t, other, "topic", func(context.Context, *broker.Message) error { handled.Add(1); return nil })
	eventually(t, "the other broker's subscriber is found", func() bool { return publish(t, b, "topic", "x").Delivered() == 2 })
	reg.cut(errAway)
	for range 10 { // before, while and after the watch is found broken
		if r := publish(t, b, "topic", "x"); r.Delivered() != 2 {
			t.Errorf("the last set is not used: %+v", r.Deliveries)
		}
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestRegistrySilent(t *testing.T) {
	t.Parallel()
	reg := newFaulty(t)
	reg.set(func() { reg.silent = true })
	b := newBroker(t, reg, http.Options{RegistryTimeout: 20 * time.Millisecond})
	if _, err := b.Publish(t.Context(), &broker.Message{Topic: "topic"}); !isUnavailable(err) || !strings.Contains(err.Error(), "20ms") {
		t.Errorf("error %v, want ErrUnavailable and the time that was waited", err)
	}
	patient := newBroker(t, reg, http.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := patient.Publish(ctx, &broker.Message{Topic: "topic"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want DeadlineExceeded", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := patient.Publish(t.Context(), &broker.Message{Topic: "topic"})
		done <- err
	}()
	_ = patient.Close()
	if err := await(t, "Publish returns", done); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}

// TestRegistryIsWatchedOnce: by all topics, for each of the names under which subscribers stand.
func TestRegistryIsWatchedOnce(t *testing.T) {
	t.Parallel()
	reg := newFaulty(t)
	b := newBroker(t, reg, http.Options{})
	subscribe(t, b, "topic", func(context.Context, *broker.Message) error { return nil })
	reg.set(func() {
		if reg.watches != 0 {
			t.Errorf("%d watches before the first Publish", reg.watches)
		}
	})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() { publish(t, b, fmt.Sprint("topic", i), "x") })
	}
	wg.Wait()
	reg.set(func() {
		if reg.watches != 2 {
			t.Errorf("%d watches, want 2", reg.watches)
		}
	})
}

// TestGoMicroV1: its brokers stand under another name, and take messages at another path and with the topic under another key. So do its
// publishers: for them a subscription of ours has a second record, which others leave out.
func TestGoMicroV1(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	address, requests, bodies := goMicro(t)
	if err := reg.Register(t.Context(), registry.Node{
		ID: "topic-1", Service: registry.BrokerServiceV1, Version: "ff.http.broadcast", Address: address,
		Metadata: map[string]string{"broker": "http", "secure": "false", "topic": "topic"},
	}, 0); err != nil {
		t.Fatal(err)
	}
	b := newBroker(t, reg, http.Options{})
	got := make(chan *broker.Message, 10)
	sub := subscribe(t, b, "topic", func(_ context.Context, m *broker.Message) error { got <- m; return nil }, broker.Queue("mail"))
	var second registry.Node
	registrytest.Eventually(t, "the second record is there", func() bool {
		nodes, err := reg.Get(t.Context(), registry.BrokerServiceV1)
		if err != nil {
			t.Fatal(err)
		}
		second = nodes[0]
		if second.ID == "topic-1" && len(nodes) == 2 {
			second = nodes[1]
		}
		return second.ID != "topic-1"
	})
	if second.Version != "mail" || second.Metadata["broker"] != "http" || second.Metadata["topic"] != "topic" || second.ID == onlyNode(t, reg).ID {
		t.Errorf("second record %+v", second)
	}
	for _, publisher := range []*http.Broker{b, newBroker(t, reg, http.Options{})} {
		r, err := publisher.Publish(t.Context(), &broker.Message{Topic: "topic", ID: "1", Body: []byte("x")})
		if err != nil || len(r.Deliveries) != 2 || r.Delivered() != 2 {
			t.Errorf("report %+v, %v, want one delivery each", r, err)
		}
		if req := await(t, "the request", requests); req.URL.String() != "/_sub?id=topic-1" {
			t.Errorf("posted to %s", req.URL)
		}
		want := `{"Header":{":topic":"topic","Content-Type":"application/octet-stream","Micro-ID":"1","Micro-Topic":"topic"},"Body":"eA=="}`
		if body := string(await(t, "the body", bodies)); body != want {
			t.Errorf("body %s, want %s", body, want)
		}
		await(t, "our message", got)
	}
	want := capture(t, "v1-proto")
	body := bytes.ReplaceAll(want.body, []byte("greeter.events"), []byte("topic"))
	raw := fmt.Sprintf("POST /_sub?id=%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n%s", second.ID, second.Address, len(body), body)
	if code, text := exchange(t, second.Address, []byte(raw)); code != 200 || text != "" {
		t.Errorf("answer %d %q, want an empty 200", code, text)
	}
	if m := await(t, "the message of v1", got); m.Topic != "topic" || m.ID != "49d05a7a-159e-49fe-beee-b7c74a4137f7" {
		t.Errorf("got %+v", m)
	}
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
	if nodes, err := reg.Get(t.Context(), registry.BrokerServiceV1); err != nil || len(nodes) != 1 {
		t.Errorf("after Close: %+v, %v", nodes, err)
	}
}

// TestNoV1: the second record can be left out.
func TestNoV1(t *testing.T) {
	t.Parallel()
	reg := newFaulty(t)
	b := newBroker(t, reg, http.Options{NoV1: true, TTL: 60 * time.Millisecond})
	subscribe(t, b, "topic", func(context.Context, *broker.Message) error { return nil })
	registrytest.Eventually(t, "it is renewed", func() bool {
		var times int
		reg.set(func() { times = len(reg.times) })
		return times > 2
	})
	if nodes, err := reg.Registry.Get(t.Context(), registry.BrokerServiceV1); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%+v, %v, want none", nodes, err)
	}
}
