package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
)

// numbered makes n messages whose bodies are their numbers.
func numbered(topic string, n int) []*broker.Message {
	ms := make([]*broker.Message, n)
	for i := range ms {
		ms[i] = message(topic, strconv.Itoa(i))
	}
	return ms
}

// publishAll publishes ms, and checks that the report has the ids and no message twice at one subscriber.
func publishAll(t *testing.T, b broker.Broker, ms []*broker.Message) broker.Report {
	t.Helper()
	r, err := b.Publish(t.Context(), ms...)
	if err != nil {
		t.Fatalf("Publish of %d messages: %v", len(ms), err)
	}
	checkReport(t, r, ms)
	return r
}

func checkReport(t *testing.T, r broker.Report, ms []*broker.Message) {
	t.Helper()
	if len(r.IDs) != len(ms) || r.ID != r.IDs[0] {
		t.Fatalf("%d ids for %d messages, the first %q", len(r.IDs), len(ms), r.ID)
	}
	seen := map[string]bool{}
	for i, id := range r.IDs {
		if id == "" || seen[id] || ms[i].ID != "" && ms[i].ID != id {
			t.Fatalf("message %d: id %q in the report, %q in the message; want one of its own", i, id, ms[i].ID)
		}
		seen[id] = true
	}
	type entry struct {
		who, queue string
		message    int
	}
	entries := map[entry]int{}
	for _, d := range r.Deliveries {
		if d.First < 0 || d.Last < d.First || d.Last >= len(ms) {
			t.Fatalf("a delivery of messages %d to %d of %d", d.First, d.Last, len(ms))
		}
		for i := d.First; i <= d.Last; i++ {
			e := entry{d.Subscriber, d.Queue, i}
			if d.Queue != "" {
				e.who = "" // one member of a queue
			}
			if entries[e]++; entries[e] > 1 {
				t.Fatalf("%+v stands twice in the report", e)
			}
		}
	}
}

func testMessages(t *testing.T, s *system) {
	const n = 3000
	in := []*inbox{newInbox(), newInbox()}
	for _, i := range in {
		subscribe(t, s, "many", i.handle)
	}
	ms := numbered("many", n)
	plain := metadata.Of("content-type", "text/plain")
	for i, m := range ms { // headers and ids that come, stay and go
		switch {
		case i%10 == 0:
			m.ID = "my-" + strconv.Itoa(i)
		case i%7 == 0:
			m.Header = nil
		case i%5 == 0:
			m.Header = metadata.Of("content-type", "text/plain", "number", strconv.Itoa(i))
		default:
			m.Header = plain
		}
		m.Body = append(m.Body, bytes.Repeat([]byte(" "), i%300)...)
	}
	r := publishAll(t, s, ms)
	s.wantDeliveredAll(t, r, n, 2)
	for _, i := range in {
		got := i.wait(t, n)
		if len(got) != n {
			t.Errorf("%d messages came, want %d", len(got), n)
		}
		seen := map[int]bool{}
		for _, m := range got {
			number, err := strconv.Atoi(strings.TrimSpace(string(m.Body)))
			if err != nil || number >= n || seen[number] {
				t.Fatalf("message %q came twice, or never was", m.Body)
			}
			seen[number] = true
			want := ms[number]
			if m.ID != r.IDs[number] || m.Topic != "many" || !bytes.Equal(m.Body, want.Body) {
				t.Fatalf("message %d came with id %q and topic %q, want id %q", number, m.ID, m.Topic, r.IDs[number])
			}
			for key, value := range want.Header.All() {
				if m.Header.Get(key) != value {
					t.Fatalf("message %d: header %s is %q, want %q", number, key, m.Header.Get(key), value)
				}
			}
			if number%5 != 0 && m.Header.Get("number") != "" {
				t.Fatalf("message %d has the header of another", number)
			}
		}
	}
}

// wantDeliveredAll checks a report of which all is well: n messages at each of some subscribers.
func (s *system) wantDeliveredAll(t *testing.T, r broker.Report, n, subscribers int) {
	t.Helper()
	if !s.can.Report {
		return
	}
	if r.Delivered() != n*subscribers || r.Err() != nil {
		t.Errorf("%d deliveries are well, want %d: %v", r.Delivered(), n*subscribers, r.Err())
	}
	for _, i := range []int{0, n / 2, n - 1} {
		if one := r.Of(i); one.ID != r.IDs[i] || len(one.Deliveries) != subscribers || one.Delivered() != subscribers {
			t.Errorf("of message %d: %+v, want %d deliveries", i, one, subscribers)
		}
	}
}

func testTopics(t *testing.T, s *system) {
	topics := []string{"one", "two", "three"}
	in := map[string]*inbox{}
	for _, topic := range topics[:2] {
		in[topic] = newInbox()
		subscribe(t, s, topic, in[topic].handle)
	}
	ms := numbered("", 90)
	for i, m := range ms {
		m.Topic = topics[i/2%3]
	}
	r := publishAll(t, s, ms)
	for topic, i := range in {
		for _, m := range i.wait(t, 30) {
			number, _ := strconv.Atoi(string(m.Body))
			if m.Topic != topic || ms[number].Topic != topic || m.ID != r.IDs[number] {
				t.Errorf("message %s of topic %s came to %s with id %q, want %q", m.Body, m.Topic, topic, m.ID, r.IDs[number])
			}
		}
		if i.count() != 30 {
			t.Errorf("%d messages came to %s, want 30", i.count(), topic)
		}
	}
	if !s.can.Report {
		return
	}
	for i, m := range ms {
		want := 1
		if m.Topic == "three" {
			want = 0
		}
		if one := r.Of(i); len(one.Deliveries) != want || one.Delivered() != want {
			t.Errorf("message %d to %s: %+v, want %d deliveries", i, m.Topic, one.Deliveries, want)
		}
	}
}

func testOrder(t *testing.T, s *system) {
	const n, rounds = 2500, 3
	in := newInbox()
	subscribe(t, s, "ordered", in.handle, broker.Concurrency(1))
	for range rounds {
		ms := numbered("ordered", n)
		for _, m := range ms {
			m.Body = append(m.Body, bytes.Repeat([]byte(" "), 100)...)
		}
		s.wantDeliveredAll(t, publishAll(t, s, ms), n, 1)
	}
	for i, m := range in.wait(t, rounds*n) {
		if got := strings.TrimSpace(string(m.Body)); got != strconv.Itoa(i%n) {
			t.Fatalf("message %d came in place %d", i%n, i)
		}
	}
}

func testMessagesToQueues(t *testing.T, s *system) {
	const n = 900
	all, members := newInbox(), []*inbox{newInbox(), newInbox(), newInbox()}
	subscribe(t, s, "jobs", all.handle)
	for _, in := range members {
		subscribe(t, s, "jobs", in.handle, broker.Queue("workers"))
	}
	r := publishAll(t, s, numbered("jobs", n))
	s.wantDeliveredAll(t, r, n, 2)
	waitTotal(t, members, n)
	all.wait(t, n)
	seen := map[string]bool{}
	for i, in := range members {
		for _, m := range in.wait(t, 0) {
			seen[string(m.Body)] = true
		}
		if in.count() < n/len(members)/3 {
			t.Errorf("member %d got %d of %d messages", i, in.count(), n)
		}
	}
	if len(seen) != n || all.count() != n {
		t.Errorf("the queue got %d different messages, the other %d, want %d", len(seen), all.count(), n)
	}
}

func testOneInvalid(t *testing.T, s *system) {
	in := newInbox()
	subscribe(t, s, "valid", in.handle)
	for name, m := range map[string]*broker.Message{
		"none": nil, "topic": message("no topic", "x"), "body": {Topic: "valid", Body: make([]byte, broker.MaxMessage+1)},
		"header": {Topic: "valid", Header: metadata.MD{9}}, "id": {Topic: "valid", ID: "\n"},
	} {
		ms := numbered("valid", 10)
		ms[7] = m
		if _, err := s.Publish(t.Context(), ms...); !errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), "7") {
			t.Errorf("bad %s: %v, want ErrInvalid that names message 7", name, err)
		}
	}
	if _, err := s.Publish(t.Context()); !errors.Is(err, broker.ErrInvalid) {
		t.Errorf("Publish of nothing: %v, want ErrInvalid", err)
	}
	publish(t, s, message("valid", "x"))
	if in.wait(t, 1); in.count() != 1 {
		t.Errorf("%d messages came, want the last alone: all are published or none", in.count())
	}
}

func testSomeFail(t *testing.T, s *system) {
	const n = 300
	good := newInbox()
	bad := &status.Error{ID: "stock", Code: 409, Detail: "sold out"}
	subscribe(t, s, "work", good.handle)
	subscribe(t, s, "work", func(_ context.Context, m *broker.Message) error {
		switch number, _ := strconv.Atoi(string(m.Body)); {
		case number == 17:
			panic("seventeen")
		case number >= 100 && number < 200:
			return bad
		}
		return nil
	}, broker.Queue("q"))
	r := publishAll(t, s, numbered("work", n))
	if r.Delivered() != n+n-101 {
		t.Errorf("%d deliveries are well, want %d: %v", r.Delivered(), n+n-101, r.Err())
	}
	for i := range n {
		want := status.Code(0)
		switch {
		case i == 17:
			want = status.Internal
		case i >= 100 && i < 200 && s.can.Status:
			want = bad.Code
		case i >= 100 && i < 200:
			continue
		}
		for _, d := range r.Of(i).Deliveries {
			switch {
			case d.Queue == "" && d.Err != nil:
				t.Errorf("message %d at the good subscriber: %v", i, d.Err)
			case d.Queue == "q" && (d.Err == nil) != (want == 0), d.Queue == "q" && want != 0 && status.CodeOf(d.Err) != want:
				t.Errorf("message %d at the other: %v, want code %d", i, d.Err, want)
			}
		}
	}
	good.wait(t, n)
}

func testAcknowledged(t *testing.T, s *system) {
	g := newGate()
	subscribe(t, s, "work", g.handle, broker.Concurrency(1))
	done := make(chan broker.Report, 1)
	ctx := t.Context()
	go func() {
		r, err := s.Publish(ctx, numbered("work", 3)...)
		if err != nil {
			t.Errorf("Publish: %v", err)
		}
		done <- r
	}()
	for i := range 3 {
		await(t, "a handler runs", g.entered)
		select {
		case <-done:
			t.Fatalf("Publish returned while message %d was being handled", i)
		default:
		}
		g.leave <- nil
	}
	s.wantDeliveredAll(t, await(t, "Publish returns", done), 3, 1)
}

// A subscriber that does not come to an end holds up the others neither now nor later, and stands apart in the report.
func testMessagesSlow(t *testing.T, s *system) {
	const n = 200
	quick := []*inbox{newInbox(), newInbox()}
	var slow atomic.Int32
	block := make(chan struct{})
	for _, in := range quick {
		subscribe(t, s, "work", in.handle)
	}
	stuck := subscribe(t, s, "work", func(context.Context, *broker.Message) error {
		slow.Add(1)
		<-block
		return nil
	}, broker.Concurrency(1), broker.Queue("slow"))
	t.Cleanup(func() { closeAll(t, stuck) })
	t.Cleanup(func() { close(block) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan broker.Report, 1)
	go func() {
		r, err := s.Publish(ctx, numbered("work", n)...)
		if err != nil {
			t.Errorf("Publish: %v", err)
		}
		done <- r
	}()
	for _, in := range quick {
		in.wait(t, n)
	}
	// They hear of the acknowledgements too: a publication later they would not be ready otherwise.
	for end := time.Now().Add(patience); slow.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	r := await(t, "Publish returns", done)
	checkReport(t, r, numbered("work", n))
	apart := 0
	for _, d := range r.Deliveries {
		if d.Queue == "slow" {
			if d.Err == nil {
				t.Errorf("messages %d to %d are acknowledged by a handler that hangs", d.First, d.Last)
			}
			apart += d.Last - d.First + 1
		}
	}
	if apart != n {
		t.Errorf("the slow subscriber has entries for %d messages, want %d", apart, n)
	}
	if got := slow.Load(); got != 1 {
		t.Errorf("%d handlers of the slow subscriber ran, want 1: the others' time was over", got)
	}
	if s.can.Busy {
		r := publishAll(t, s, numbered("work", n))
		if r.Delivered() != 2*n || !errors.Is(r.Err(), broker.ErrBusy) {
			t.Errorf("beside a handler that hangs: %d deliveries are well, want %d, and ErrBusy: %v", r.Delivered(), 2*n, r.Err())
		}
	}
}

func testOneHangs(t *testing.T, s *system) {
	const n = 50
	hung := make(chan struct{})
	var handled atomic.Int32
	sub := subscribe(t, s, "work", func(_ context.Context, m *broker.Message) error {
		if string(m.Body) == "20" {
			<-hung
			return nil
		}
		handled.Add(1)
		return nil
	}, broker.Timeout(50*time.Millisecond), broker.Concurrency(2))
	t.Cleanup(func() { closeAll(t, sub) })
	t.Cleanup(func() { close(hung) })
	r := publishAll(t, s, numbered("work", n))
	if r.Delivered() != n-1 || handled.Load() != n-1 {
		t.Errorf("%d deliveries are well, %d handlers returned, want %d: %v", r.Delivered(), handled.Load(), n-1, r.Err())
	}
	if d := only(t, r.Of(20)); !errors.Is(d.Err, &status.Error{Code: status.HandlerTimeout}) {
		t.Errorf("the message whose handler hangs: %v, want code 504", d.Err)
	}
}

// The messages of slow handlers do not wait for each other where there are places.
func testSlowHandlers(t *testing.T, s *system) {
	const n = 20
	g := newGate()
	subscribe(t, s, "work", g.handle, broker.Concurrency(n))
	done := make(chan broker.Report, 1)
	ctx := t.Context()
	go func() {
		r, err := s.Publish(ctx, numbered("work", n)...)
		if err != nil {
			t.Errorf("Publish: %v", err)
		}
		done <- r
	}()
	for range n {
		await(t, "all handlers run at the same time", g.entered)
	}
	for range n {
		g.leave <- nil
	}
	s.wantDeliveredAll(t, await(t, "Publish returns", done), n, 1)
}

func testSomeRefused(t *testing.T, s *system) {
	const n = 100
	var mu sync.Mutex
	taken := map[string]int{}
	take := func(m *broker.Message) {
		mu.Lock()
		defer mu.Unlock()
		taken[string(m.Body)]++
	}
	subscribe(t, s, "work", func(_ context.Context, m *broker.Message) error {
		if number, _ := strconv.Atoi(string(m.Body)); number%3 == 0 {
			return status.Refuse(status.Unavailable, "not this one")
		}
		take(m)
		return nil
	}, broker.Queue("q"))
	subscribe(t, s, "work", func(_ context.Context, m *broker.Message) error { take(m); return nil }, broker.Queue("q"))
	s.wantDeliveredAll(t, publishAll(t, s, numbered("work", n)), n, 1)
	mu.Lock()
	defer mu.Unlock()
	for i := range n {
		if got := taken[fmt.Sprint(i)]; got != 1 {
			t.Errorf("message %d was handled %d times, want once", i, got)
		}
	}
}

func testClosedInTheMidst(t *testing.T, s *system) {
	const n = 30
	g := newGate()
	var handled atomic.Int32
	sub := subscribe(t, s, "work", func(ctx context.Context, m *broker.Message) error {
		handled.Add(1)
		if string(m.Body) == "10" {
			return g.handle(ctx, m)
		}
		return nil
	}, broker.Concurrency(1))
	done := make(chan broker.Report, 1)
	ctx := t.Context()
	go func() {
		r, err := s.Publish(ctx, numbered("work", n)...)
		if err != nil {
			t.Errorf("Publish: %v", err)
		}
		done <- r
	}()
	await(t, "the handler runs", g.entered)
	closeAll(t, sub)
	r := await(t, "Publish returns", done)
	if got := handled.Load(); got != 11 {
		t.Errorf("%d messages were handled, want 11", got)
	}
	var numbers []int
	for _, d := range r.Deliveries {
		for i := d.First; i <= d.Last; i++ {
			if numbers = append(numbers, i); (d.Err == nil) != (i < 10) {
				t.Errorf("message %d: %v", i, d.Err)
			}
		}
	}
	slices.Sort(numbers)
	if len(numbers) < 11 || numbers[10] != 10 {
		t.Errorf("the report has messages %v, want 0 to 10 at least", numbers)
	}
}
