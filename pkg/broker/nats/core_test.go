package nats_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/nats"
	"github.com/cb02dfca/micro/pkg/metadata"
)

const patience = 30 * time.Second

// until waits for ok.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// inbox collects bodies.
type inbox struct {
	mu  sync.Mutex
	got []*broker.Message
}

func (in *inbox) handle(_ context.Context, m *broker.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got = append(in.got, m)
	return nil
}

func (in *inbox) all() []*broker.Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]*broker.Message(nil), in.got...)
}

// wait gives the bodies when there are n.
func (in *inbox) wait(t *testing.T, n int) []string {
	t.Helper()
	until(t, fmt.Sprint(n, " messages"), func() bool { return len(in.all()) >= n })
	var bodies []string
	for _, m := range in.all() {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

func subscribe(t *testing.T, b broker.Broker, topic string, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	t.Helper()
	s, err := b.Subscribe(t.Context(), topic, h, opts...)
	must(t, err)
	return s
}

func publish(t *testing.T, b broker.Broker, topic string, bodies ...string) broker.Report {
	t.Helper()
	var ms []*broker.Message
	for _, body := range bodies {
		ms = append(ms, &broker.Message{Topic: topic, Header: metadata.Of("content-type", "text/plain"), Body: []byte(body)})
	}
	r, err := b.Publish(t.Context(), ms...)
	must(t, err)
	return r
}

// raw gives a client of NATS itself, with o's login.
func raw(t testing.TB, o nats.Options) *natsgo.Conn {
	t.Helper()
	nc, err := natsgo.Connect("nats://"+o.Servers[0], natsgo.UserInfo(o.Username, o.Password))
	must(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// What go-micro v5's broker on NATS sends for a message with these headers, and reads.
const theirs = `{"Header":{"Content-Type":"application/json","Micro-Id":"abc","Micro-Topic":"gm.out","Trace":"x"},"Body":"eyJhIjoxfQ=="}`

// TestGoMicro: a message of go-micro arrives, and what is published is what go-micro reads; with a stream too.
func TestGoMicro(t *testing.T) {
	t.Parallel()
	for name, stream := range map[string]string{"core": "", "stream": "fleet"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := account(t)
			o.Stream = stream
			b, nc := open(t, o), raw(t, o)
			in := &inbox{}
			subscribe(t, b, "gm.out", in.handle)
			must(t, nc.Publish("gm.out", []byte(theirs)))
			in.wait(t, 1)
			m := in.all()[0]
			if m.ID != "abc" || m.Topic != "gm.out" || string(m.Body) != `{"a":1}` || m.Header.Len() != 2 || m.Header.Get("trace") != "x" || m.Header.Get("content-type") != "application/json" {
				t.Errorf("got %+v", m)
			}
			theirInbox := make(chan *natsgo.Msg, 10)
			sub, err := nc.ChanQueueSubscribe("gm.in", "q", theirInbox)
			must(t, err)
			defer sub.Unsubscribe()
			must(t, nc.Flush())
			id := publish(t, b, "gm.in", "hello").ID
			var got struct {
				Header map[string]string
				Body   []byte
			}
			must(t, json.Unmarshal((<-theirInbox).Data, &got))
			if string(got.Body) != "hello" || got.Header["Micro-ID"] != id || got.Header["Micro-Topic"] != "gm.in" || got.Header["Content-Type"] != "text/plain" || len(got.Header) != 3 {
				t.Errorf("go-micro gets %+v", got)
			}
		})
	}
}

// What a slow subscriber cannot take is dropped, and said; others get all.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	const n = 2000
	o := account(t)
	said := &journal{}
	o.PendingBytes, o.Logger = 100_000, said.logger()
	b := open(t, o)
	release := make(chan struct{})
	slow, quick := &inbox{}, &inbox{}
	sub := subscribe(t, b, "flood", func(ctx context.Context, m *broker.Message) error {
		<-release
		return slow.handle(ctx, m)
	}, broker.Concurrency(1), broker.Timeout(time.Hour))
	other := o
	other.PendingBytes = 0
	subscribe(t, open(t, other), "flood", quick.handle, broker.Queue("q"))
	for i := range n / 100 {
		bodies := make([]string, 100)
		for j := range bodies {
			bodies[j] = fmt.Sprintf("%-500d", i*100+j)
		}
		publish(t, b, "flood", bodies...)
	}
	quick.wait(t, n)
	until(t, "the logger is told", func() bool {
		return strings.Contains(said.String(), "a subscription is too slow, and messages are dropped") && strings.Contains(said.String(), "topic=flood")
	})
	close(release)
	got := slow.wait(t, 50)
	publish(t, b, "flood", "after")
	until(t, "the subscription goes on", func() bool { all := slow.all(); return string(all[len(all)-1].Body) == "after" })
	if len(got) >= n {
		t.Errorf("all of %d messages came, want some to be dropped", len(got))
	}
	for i, body := range got {
		if i < 50 && strings.TrimSpace(body) != fmt.Sprint(i) {
			t.Fatalf("message %q came in place %d", strings.TrimSpace(body), i)
		}
	}
	must(t, sub.Close())
}

// What is no envelope is left out, and said; so is a handler that fails, and what a closed subscription had.
func TestLogged(t *testing.T) {
	t.Parallel()
	o := account(t)
	said := &journal{}
	o.Logger = said.logger()
	b, nc := open(t, o), raw(t, o)
	in := &inbox{}
	subscribe(t, b, "odd", func(ctx context.Context, m *broker.Message) error {
		_ = in.handle(ctx, m)
		return errors.New("it fails")
	}, broker.Queue("q"))
	must(t, nc.Publish("odd", []byte("{")))
	must(t, nc.Flush())
	publish(t, b, "odd", "well")
	in.wait(t, 1)
	until(t, "the logger is told", func() bool {
		return strings.Contains(said.String(), "a message is no envelope, and is left out") && strings.Contains(said.String(), `error="it fails"`)
	})
	entered := make(chan struct{}, 100)
	sub := subscribe(t, b, "left", func(ctx context.Context, _ *broker.Message) error {
		entered <- struct{}{}
		<-ctx.Done()
		return nil
	}, broker.Concurrency(1))
	publish(t, b, "left", "1", "2", "3", "4")
	<-entered
	until(t, "messages wait", func() bool { return nats.Waiting(sub) > 0 })
	must(t, sub.Close())
	if !strings.Contains(said.String(), "messages that waited are dropped") || len(entered) != 0 {
		t.Errorf("%d further handlers began; the logger was told\n%s", len(entered), said)
	}
}

// The server's own limit is told before anything is sent.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	s := own(t, "max_payload: 10000", withStreams)
	for _, stream := range []string{"", "s"} {
		b := open(t, nats.Options{Servers: []string{s.Addr}, Stream: stream})
		in := &inbox{}
		subscribe(t, b, "size", in.handle)
		small, large := &broker.Message{Topic: "size", Body: []byte("x")}, &broker.Message{Topic: "size", Body: make([]byte, 8000)}
		_, err := b.Publish(t.Context(), small, large)
		if !errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), "message 1 has 10") || !strings.Contains(err.Error(), "takes 10000: raise its max_payload") {
			t.Errorf("Publish gave %v", err)
		}
		publish(t, b, "size", "y")
		if got := in.wait(t, 1); got[0] != "y" {
			t.Errorf("got %q: one of a Publish that failed was published", got[0])
		}
		must(t, b.Close())
	}
}
