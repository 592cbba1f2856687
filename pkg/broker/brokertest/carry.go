package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

func testFanOut(t *testing.T, s *system) {
	in := []*inbox{newInbox(), newInbox(), newInbox()}
	other := newInbox()
	for _, i := range in {
		sub := subscribe(t, s, "orders.created", i.handle)
		if sub.Topic() != "orders.created" || sub.Queue() != "" {
			t.Errorf("Topic %q, Queue %q", sub.Topic(), sub.Queue())
		}
	}
	subscribe(t, s, "orders.deleted", other.handle)
	subscribe(t, s, "orders", other.handle)
	for n := range 5 {
		s.wantDelivered(t, publish(t, s, message("orders.created", fmt.Sprint(n))), 3)
	}
	for _, i := range in {
		seen := map[string]bool{}
		for _, m := range i.wait(t, 5) {
			seen[string(m.Body)] = true
		}
		if len(seen) != 5 || i.count() != 5 {
			t.Errorf("a subscriber got %d messages, %d different, want 5", i.count(), len(seen))
		}
	}
	if other.count() != 0 {
		t.Errorf("subscribers of other topics got %d messages", other.count())
	}
}

func testQueues(t *testing.T, s *system) {
	const messages, members = 150, 3
	queues := map[string][]*inbox{"mail": nil, "stock": nil}
	for name := range queues {
		for range members {
			in := newInbox()
			queues[name] = append(queues[name], in)
			if sub := subscribe(t, s, "orders", in.handle, broker.Queue(name)); sub.Queue() != name {
				t.Errorf("Queue %q, want %q", sub.Queue(), name)
			}
		}
	}
	all := newInbox()
	subscribe(t, s, "orders", all.handle)
	elsewhere := newInbox()
	subscribe(t, s, "payments", elsewhere.handle, broker.Queue("mail"))
	for n := range messages {
		r := publish(t, s, message("orders", fmt.Sprint(n)))
		s.wantDelivered(t, r, 3)
		if s.can.Report && n == 0 {
			names := map[string]int{}
			for _, d := range r.Deliveries {
				names[d.Queue]++
			}
			if names["mail"] != 1 || names["stock"] != 1 || names[""] != 1 {
				t.Errorf("deliveries by queue: %v", names)
			}
		}
	}
	all.wait(t, messages)
	for name, ins := range queues {
		waitTotal(t, ins, messages)
		seen := map[string]int{}
		for i, in := range ins {
			for _, m := range in.wait(t, 0) {
				seen[string(m.Body)]++
			}
			if in.count() < messages/members/3 {
				t.Errorf("member %d of queue %s got %d of %d messages", i, name, in.count(), messages)
			}
		}
		if len(seen) != messages {
			t.Errorf("queue %s got %d different messages, want %d", name, len(seen), messages)
		}
	}
	if elsewhere.count() != 0 {
		t.Errorf("the same queue of another topic got %d messages", elsewhere.count())
	}
}

// waitTotal waits until the inboxes have n messages together, and checks that they have no more.
func waitTotal(t *testing.T, ins []*inbox, n int) {
	t.Helper()
	total := func() (sum int) {
		for _, in := range ins {
			sum += in.count()
		}
		return sum
	}
	for end := time.Now().Add(patience); total() < n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if total() != n {
		t.Errorf("%d messages came, want %d", total(), n)
	}
}

func testWhole(t *testing.T, s *system) {
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	tests := []struct {
		name string
		m    broker.Message
	}{
		{"text", broker.Message{ID: "4711", Header: metadata.Of("content-type", "text/plain"), Body: []byte("hello")}},
		{"no id", broker.Message{Header: metadata.Of("content-type", "application/json"), Body: []byte("{}")}},
		{"binary", broker.Message{Header: metadata.Of("content-type", "application/octet-stream"), Body: binary}},
		{"empty", broker.Message{Header: metadata.Of("content-type", "application/protobuf")}},
		{"1 MiB", broker.Message{Header: metadata.Of("content-type", "x/y"), Body: bytes.Repeat(binary, 4096)}},
		{"unicode", broker.Message{
			ID:     "id with spaces <&> \"quoted\" ü",
			Header: metadata.Of("content-type", "text/plain; charset=utf-8", "name", "Žižek 世界 🎈", "html", "<a href=\"x\">&amp;</a>", "tab", "a\tb", "empty", ""),
			Body:   []byte("世界"),
		}},
		{"many headers", broker.Message{Header: manyHeaders(), Body: []byte("x")}},
	}
	in := newInbox()
	subscribe(t, s, "some/topic-of_v1.2", in.handle)
	for i, test := range tests {
		m := test.m
		m.Topic = "some/topic-of_v1.2"
		r := publish(t, s, &m)
		s.wantDelivered(t, r, 1)
		got := in.wait(t, i+1)[i]
		if m.ID != test.m.ID {
			t.Errorf("%s: Publish changed the message's id to %q", test.name, m.ID)
		}
		if got.Topic != m.Topic || got.ID != r.ID || !bytes.Equal(got.Body, m.Body) {
			t.Errorf("%s: got topic %q, id %q, body of %d bytes; want %q, %q, %d bytes", test.name, got.Topic, got.ID, len(got.Body), m.Topic, r.ID, len(m.Body))
		}
		wantHeader(t, test.name, got.Header, m.Header)
	}
}

// manyHeaders leaves room for a few that a carrier adds.
func manyHeaders() metadata.MD {
	md := metadata.Of("content-type", "text/plain")
	for i := range metadata.MaxPairs / 2 {
		md, _ = md.Set(fmt.Sprintf("key-%d", i), strings.Repeat("v", i))
	}
	return md
}

func wantHeader(t *testing.T, name string, got, want metadata.MD) {
	t.Helper()
	for key, value := range want.All() {
		if _, ok := got.Bytes(key); !ok || got.Get(key) != value {
			t.Errorf("%s: header %s is %q, want %q", name, key, got.Get(key), value)
		}
	}
	if got.Len() != want.Len() {
		t.Errorf("%s: %d headers, want %d", name, got.Len(), want.Len())
	}
}

func testOwn(t *testing.T, s *system) {
	kept := newInbox()
	var wg sync.WaitGroup
	spoil := func(_ context.Context, m *broker.Message) error {
		defer wg.Done()
		clear(m.Body)
		clear(m.Header)
		m.Topic, m.ID = "", ""
		return nil
	}
	wg.Add(2)
	subscribe(t, s, "own", spoil)
	subscribe(t, s, "own", kept.handle)
	subscribe(t, s, "own", spoil)
	m := message("own", "untouched")
	id := publish(t, s, m).ID
	wg.Wait()
	kept.wait(t, 1)
	if string(m.Body) != "untouched" || m.Topic != "own" || m.Header.Get("content-type") != "text/plain" {
		t.Errorf("a handler changed the publisher's message: %+v", m)
	}
	clear(m.Body) // the publisher's storage is its own again
	clear(m.Header)
	got := kept.wait(t, 1)[0]
	if string(got.Body) != "untouched" || got.Topic != "own" || got.ID != id || got.Header.Get("content-type") != "text/plain" {
		t.Errorf("another changed a handler's message: %+v", got)
	}
}

func testNobody(t *testing.T, s *system) {
	r := publish(t, s, message("empty.room", "x"))
	if len(r.Deliveries) != 0 || r.Err() != nil {
		t.Errorf("deliveries %+v, error %v, want none", r.Deliveries, r.Err())
	}
	in := newInbox()
	subscribe(t, s, "empty.room", in.handle)
	s.wantDelivered(t, publish(t, s, message("empty.room", "y")), 1)
	if got := in.wait(t, 1); string(got[0].Body) != "y" {
		t.Errorf("got %q: it was published before anybody subscribed", got[0].Body)
	}
}

func testInvalid(t *testing.T, s *system) {
	in := newInbox()
	for _, topic := range []string{"", " ", "a b", ".a", "/a", "a\n", "ü", strings.Repeat("a", broker.MaxTopic+1), "a*"} {
		if _, err := s.Publish(t.Context(), message(topic, "x")); !errors.Is(err, broker.ErrInvalid) {
			t.Errorf("Publish to topic %q: %v, want ErrInvalid", topic, err)
		}
		if _, err := s.Subscribe(t.Context(), topic, in.handle); !errors.Is(err, broker.ErrInvalid) {
			t.Errorf("Subscribe to topic %q: %v, want ErrInvalid", topic, err)
		}
	}
	for name, opt := range map[string]broker.SubscribeOption{
		"queue":       broker.Queue("a b"),
		"concurrency": broker.Concurrency(0),
		"timeout":     broker.Timeout(0),
	} {
		if _, err := s.Subscribe(t.Context(), "valid", in.handle, opt); !errors.Is(err, broker.ErrInvalid) {
			t.Errorf("Subscribe with a bad %s: %v, want ErrInvalid", name, err)
		}
	}
	if _, err := s.Subscribe(t.Context(), "valid", nil); !errors.Is(err, broker.ErrInvalid) {
		t.Errorf("Subscribe without a handler: %v, want ErrInvalid", err)
	}
	subscribe(t, s, "valid", in.handle)
	for name, m := range map[string]*broker.Message{
		"none":            nil,
		"long body":       {Topic: "valid", Body: make([]byte, broker.MaxMessage+1)},
		"long id":         {Topic: "valid", ID: strings.Repeat("a", broker.MaxID+1)},
		"unprintable id":  {Topic: "valid", ID: "a\nb"},
		"reserved header": {Topic: "valid", Header: metadata.Of("micro-topic", "other")},
		"torn header":     {Topic: "valid", Header: metadata.MD{200, 'a'}},
		"no UTF-8":        {Topic: "valid", Header: metadata.Of("a", "\xff")},
	} {
		if _, err := s.Publish(t.Context(), m); !errors.Is(err, broker.ErrInvalid) {
			t.Errorf("Publish of a message with %s: %v, want ErrInvalid", name, err)
		}
	}
	long := strings.Repeat("a", broker.MaxTopic)
	subscribe(t, s, long, in.handle, broker.Queue(long))
	subscribe(t, s, "a..b/.c-", in.handle)
	publish(t, s, message(long, "1"))
	publish(t, s, message("a..b/.c-", "2"))
	if in.wait(t, 2); in.count() != 2 {
		t.Errorf("%d messages came, want the 2 valid ones", in.count())
	}
}

func testConcurrent(t *testing.T, s *system) {
	const publishers, each = 8, 25
	steady := newInbox()
	subscribe(t, s, "busy.topic", steady.handle, broker.Concurrency(publishers))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range each {
				sub, err := s.Subscribe(t.Context(), "busy.topic", newInbox().handle, broker.Queue("q"))
				if err != nil {
					t.Errorf("Subscribe: %v", err)
					return
				}
				closeAll(t, sub)
			}
		})
	}
	for p := range publishers {
		wg.Go(func() {
			for n := range each {
				if _, err := s.Publish(t.Context(), message("busy.topic", fmt.Sprintf("%d.%d", p, n))); err != nil {
					t.Errorf("Publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]int{}
	for _, m := range steady.wait(t, publishers*each) {
		seen[string(m.Body)]++
	}
	if len(seen) != publishers*each || steady.count() != publishers*each {
		t.Errorf("%d messages, %d different, want %d", steady.count(), len(seen), publishers*each)
	}
}

func testSeveral(t *testing.T, s *system) {
	other := s.open()
	here, there := newInbox(), newInbox()
	subscribe(t, s, "shared", here.handle)
	subscribe(t, other, "shared", there.handle)
	for _, b := range []broker.Broker{s, other} {
		settle(t, s, b, "shared", here, there)
	}
	closeAll(t, other)
	was := there.count()
	settle(t, s, s, "shared", here)
	if there.count() != was {
		t.Error("a closed broker's subscriber got a message")
	}
}

// settle publishes until exactly the inboxes get the messages: others hear of a subscription as fast as the system
// spreads it.
func settle(t *testing.T, s *system, b broker.Broker, topic string, ins ...*inbox) {
	t.Helper()
	end := time.Now().Add(patience)
	for n := 0; ; n++ {
		before := make([]int, len(ins))
		for i, in := range ins {
			before[i] = in.count()
		}
		r := publish(t, b, message(topic, "settling"))
		all := !s.can.Report || len(r.Deliveries) == len(ins) && r.Err() == nil
		for i, in := range ins {
			all = all && in.count() > before[i]
		}
		if all {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d subscribers were not found in time: %+v", len(ins), r)
		}
		time.Sleep(time.Millisecond)
	}
}
