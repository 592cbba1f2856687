package nats_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/nats"
	"github.com/cb02dfca/micro/pkg/status"
)

// streams gives options for a stream in an account of its own, and JetStream's client there.
func streams(t *testing.T) (nats.Options, jetstream.JetStream) {
	t.Helper()
	o := account(t)
	o.Stream, o.Tries, o.RetryWait = "test", 4, 20*time.Millisecond
	js, err := jetstream.New(raw(t, o))
	must(t, err)
	return o, js
}

func count(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), "test")
	must(t, err)
	return s.CachedInfo().State.Msgs
}

// TestFrom: new queues and subscribers begin where From says; a queue that stands goes on where it was.
func TestFrom(t *testing.T) {
	t.Parallel()
	o, _ := streams(t)
	b := open(t, o)
	publish(t, b, "log", "1", "2", "3")
	time.Sleep(20 * time.Millisecond) // two messages of different times
	between := time.Now()
	publish(t, b, "log", "4", "5")
	for _, tt := range []struct {
		from nats.From
		want string
	}{
		{nats.From{All: true}, "1 2 3 4 5 6"},
		{nats.From{Sequence: 3}, "3 4 5 6"},
		{nats.From{Time: between}, "4 5 6"},
		{nats.From{}, "6"},
	} {
		o.From = tt.from
		b := open(t, o)
		var all []*inbox
		for _, queue := range []string{"", fmt.Sprintf("q%d", len(tt.want))} {
			in := &inbox{}
			opts := []broker.SubscribeOption{broker.Concurrency(1)}
			if queue != "" {
				opts = append(opts, broker.Queue(queue))
			}
			subscribe(t, b, "log", in.handle, opts...)
			all = append(all, in)
		}
		if tt.from == (nats.From{}) {
			publish(t, b, "log", "6")
		}
		for _, in := range all {
			want := strings.TrimSuffix(tt.want, " 6")
			if got := strings.Join(in.wait(t, len(strings.Fields(want))), " "); got != want {
				t.Errorf("from %+v came %q, want %q", tt.from, got, want)
			}
		}
		must(t, b.Close())
	}
	o.From = nats.From{All: true}
	in := &inbox{}
	subscribe(t, open(t, o), "log", in.handle, broker.Queue("q1")) // it stands since "6"
	publish(t, b, "log", "7")
	if got := in.wait(t, 1); got[0] != "7" {
		t.Errorf("a queue that stands began with %q", got[0])
	}
}

// The same id at the same topic is stored once; at another it is another message.
func TestStoredOnce(t *testing.T) {
	t.Parallel()
	o, js := streams(t)
	b := open(t, o)
	for range 3 {
		for _, topic := range []string{"a", "b"} {
			must(t, second(b.Publish(t.Context(), &broker.Message{Topic: topic, ID: "order 7", Body: []byte("x")})))
		}
	}
	if n := count(t, js); n != 2 {
		t.Errorf("%d messages are stored, want 2", n)
	}
}

// With one place and no queue a message that fails comes again before the next.
func TestStrictOrder(t *testing.T) {
	t.Parallel()
	o, _ := streams(t)
	b := open(t, o)
	in := &inbox{}
	tries := map[string]int{}
	subscribe(t, b, "strict", func(ctx context.Context, m *broker.Message) error {
		_ = in.handle(ctx, m)
		if tries[string(m.Body)]++; strings.HasSuffix(string(m.Body), "1") && tries[string(m.Body)] < 3 {
			return errors.New("again")
		}
		return nil
	}, broker.Concurrency(1))
	publish(t, b, "strict", "0", "1", "2", "3", "11")
	publish(t, b, "strict", "12")
	want := "0 1 1 1 2 3 11 11 11 12"
	if got := strings.Join(in.wait(t, 10), " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A member that dies with a message, again and again, does not keep it for ever: it is a dead letter, and others were not given it
// too often.
func TestDiedWithIt(t *testing.T) {
	t.Parallel()
	o, js := streams(t)
	o.AckWait = time.Second
	b := open(t, o)
	dead := &inbox{}
	subscribe(t, b, "crash.dead", dead.handle)
	sub := subscribe(t, b, "crash", dead.handle, broker.Queue("q"))
	name := nats.Consumer(sub)
	if name != "crash+q" {
		t.Errorf("the consumer's name is %q", name)
	}
	must(t, sub.Close())
	publish(t, b, "crash", "poison", "well")
	dying, err := js.Consumer(t.Context(), "test", name)
	must(t, err)
	for n := range o.Tries {
		batch, err := dying.Fetch(2, jetstream.FetchMaxWait(patience))
		must(t, err)
		for m := range batch.Messages() {
			if strings.Contains(string(m.Data()), "d2VsbA==") {
				if n == 0 {
					must(t, m.Nak())
				} else {
					must(t, m.Nak())
				}
			}
		}
	}
	in := &inbox{}
	subscribe(t, b, "crash", in.handle, broker.Queue("q"))
	if got := dead.wait(t, 1); got[0] != "poison" && got[0] != "well" {
		t.Errorf("the dead letter is %q", got[0])
	}
	m := dead.all()[0]
	if m.Header.Get(broker.DeadTriesKey) != "4" || !strings.Contains(m.Header.Get(broker.DeadReasonKey), "went away, or did not answer") {
		t.Errorf("the dead letter's header is %v", m.Header)
	}
}

// A handler may run longer than AckWait: it is not taken for dead.
func TestLongHandler(t *testing.T) {
	t.Parallel()
	o, _ := streams(t)
	o.AckWait = time.Second
	b := open(t, o)
	in := &inbox{}
	for range 2 {
		subscribe(t, b, "long", func(ctx context.Context, m *broker.Message) error {
			_ = in.handle(ctx, m)
			if string(m.Body) == "slow" {
				time.Sleep(2500 * time.Millisecond) // more than AckWait twice
			}
			return nil
		}, broker.Queue("q"))
	}
	publish(t, b, "long", "slow")
	in.wait(t, 1)
	time.Sleep(2600 * time.Millisecond)
	publish(t, b, "long", "next")
	if got := in.wait(t, 2); strings.Join(got, " ") != "slow next" {
		t.Errorf("got %q", got)
	}
}

// A consumer, and a stream, that somebody takes away are made again; nothing is lost that stands in the stream.
func TestTakenAway(t *testing.T) {
	t.Parallel()
	for _, queue := range []string{"", "q"} {
		t.Run("queue "+queue, func(t *testing.T) {
			t.Parallel()
			o, js := streams(t)
			b := open(t, o)
			in := &inbox{}
			opts := []broker.SubscribeOption{broker.Concurrency(1)}
			if queue != "" {
				opts = append(opts, broker.Queue(queue))
			}
			sub := subscribe(t, b, "gone", in.handle, opts...)
			publish(t, b, "gone", "1", "2")
			in.wait(t, 2)
			acknowledged(t, js, sub)
			began := time.Now()
			must(t, js.DeleteConsumer(t.Context(), "test", nats.Consumer(sub)))
			publish(t, b, "gone", "3")
			in.wait(t, 3)
			must(t, js.DeleteStream(t.Context(), "test"))
			publish(t, b, "gone", "4")
			if got := strings.Join(in.wait(t, 4), " "); got != "1 2 3 4" {
				t.Errorf("got %s", got)
			}
			if took := time.Since(began); took > nats.DefaultAckWait/2 {
				t.Errorf("the last came after %v", took)
			}
		})
	}
}

// A server tells of a consumer's end before it has removed its files, and who makes one of the same name sooner gets what they have, which
// may be older than the last acknowledgements: those messages do not come again, nor do others wait for them.
func TestTakenAwayLeavesFiles(t *testing.T) {
	t.Parallel()
	for _, queue := range []string{"", "q"} {
		t.Run("queue "+queue, func(t *testing.T) {
			t.Parallel()
			s := own(t, withStreams)
			relay := testserver.NewRelay(t, s.Addr)
			direct := nats.Options{Servers: []string{s.Addr}, Stream: "test"}
			through := direct
			through.Servers = []string{relay.Addr}
			js, err := jetstream.New(raw(t, direct))
			must(t, err)
			b, subscriber, in := open(t, direct), open(t, through), &inbox{}
			free, leave := context.WithCancel(context.Background())
			t.Cleanup(leave)
			opts := []broker.SubscribeOption{broker.Concurrency(1)}
			if queue != "" {
				opts = append(opts, broker.Queue(queue))
			}
			sub := subscribe(t, subscriber, "gone", func(ctx context.Context, m *broker.Message) error {
				<-free.Done()
				return in.handle(ctx, m)
			}, opts...)
			publish(t, b, "gone", "1", "2")
			file := filepath.Join(s.Dir, "streams", "jetstream", "$G", "streams", "test", "obs", nats.Consumer(sub), "o.dat")
			var left []byte
			until(t, "the first waits for its acknowledgement, on disk", func() bool {
				left, err = os.ReadFile(file)
				return err == nil && waiting(left) > 0
			})
			leave()
			in.wait(t, 2)
			acknowledged(t, js, sub)
			relay.Hold()
			must(t, js.DeleteConsumer(t.Context(), "test", nats.Consumer(sub)))
			must(t, os.MkdirAll(filepath.Dir(file), 0o750))
			must(t, os.WriteFile(file, left, 0o640))
			began := time.Now()
			relay.Release()
			publish(t, b, "gone", "3")
			if got := strings.Join(in.wait(t, 3), " "); got != "1 2 3" {
				t.Errorf("got %s", got)
			}
			acknowledged(t, js, sub)
			publish(t, b, "gone", "4")
			if got := strings.Join(in.wait(t, 4), " "); got != "1 2 3 4" {
				t.Errorf("got %s", got)
			}
			if took := time.Since(began); took > nats.DefaultAckWait/2 {
				t.Errorf("the last came after %v", took)
			}
		})
	}
}

// waiting gives how many messages wait for an acknowledgement, as the file of a consumer's state has it: two bytes, where the
// acknowledgements and the deliveries are, then this, as varints.
func waiting(state []byte) (n uint64) {
	for i, rest := 0, state[min(2, len(state)):]; i < 5 && len(rest) > 0; i++ {
		var size int
		n, size = binary.Uvarint(rest)
		rest = rest[max(size, 1):]
		if i < 4 {
			n = 0
		}
	}
	return n
}

// acknowledged waits until all that was delivered is.
func acknowledged(t *testing.T, js jetstream.JetStream, sub broker.Subscription) {
	t.Helper()
	until(t, "all is acknowledged", func() bool {
		c, err := js.Consumer(t.Context(), "test", nats.Consumer(sub))
		must(t, err)
		return c.CachedInfo().NumAckPending == 0
	})
}

// A message that a handler has when its consumer is taken away, and that fails then, comes again.
func TestTakenAwayWhileHandled(t *testing.T) {
	t.Parallel()
	for _, queue := range []string{"", "q"} {
		t.Run("queue "+queue, func(t *testing.T) {
			t.Parallel()
			o, js := streams(t)
			b := open(t, o)
			in, entered := &inbox{}, make(chan struct{}, 100)
			free, leave := context.WithCancel(context.Background())
			t.Cleanup(leave)
			opts := []broker.SubscribeOption{broker.Concurrency(2)}
			if queue != "" {
				opts = append(opts, broker.Queue(queue))
			}
			var failed atomic.Bool
			sub := subscribe(t, b, "gone", func(ctx context.Context, m *broker.Message) error {
				if string(m.Body) == "1" && !failed.Swap(true) {
					entered <- struct{}{}
					<-free.Done()
					return errors.New("it fails")
				}
				return in.handle(ctx, m)
			}, opts...)
			publish(t, b, "gone", "1", "2")
			until(t, "a handler has the first", func() bool { return len(entered) > 0 })
			in.wait(t, 1)
			must(t, js.DeleteConsumer(t.Context(), "test", nats.Consumer(sub)))
			publish(t, b, "gone", "3")
			until(t, "the third comes", func() bool { return slices.Contains(in.wait(t, 0), "3") })
			leave()
			until(t, "the first comes again", func() bool { return slices.Contains(in.wait(t, 0), "1") })
		})
	}
}

// A message that failed, and waits to come again when its consumer is taken away, comes again.
func TestTakenAwayBetweenTries(t *testing.T) {
	t.Parallel()
	for _, queue := range []string{"", "q"} {
		t.Run("queue "+queue, func(t *testing.T) {
			t.Parallel()
			o, js := streams(t)
			said := &journal{}
			o.RetryWait, o.Logger = time.Hour, said.logger()
			b, in := open(t, o), &inbox{}
			opts := []broker.SubscribeOption{broker.Concurrency(2)}
			if queue != "" {
				opts = append(opts, broker.Queue(queue))
			}
			var failed atomic.Bool
			sub := subscribe(t, b, "gone", func(ctx context.Context, m *broker.Message) error {
				if string(m.Body) == "1" && !failed.Swap(true) {
					return errors.New("it fails")
				}
				return in.handle(ctx, m)
			}, opts...)
			publish(t, b, "gone", "1", "2")
			in.wait(t, 1)
			until(t, "the first has failed", func() bool { return strings.Contains(said.String(), "its message comes again") })
			must(t, js.DeleteConsumer(t.Context(), "test", nats.Consumer(sub)))
			until(t, "the first comes again", func() bool { return slices.Contains(in.wait(t, 0), "1") })
		})
	}
}

// What is said of a message of a stream that is gone does not count for the one that has its place in the next.
func TestSaidOfAnother(t *testing.T) {
	t.Parallel()
	o, js := streams(t)
	b := open(t, o)
	entered, leave := make(chan string, 100), map[string]chan error{"old": make(chan error, 2), "new": make(chan error, 2)}
	sub := subscribe(t, b, "gone", func(_ context.Context, m *broker.Message) error {
		entered <- string(m.Body)
		return <-leave[string(m.Body)]
	}, broker.Queue("q"), broker.Concurrency(2))
	t.Cleanup(func() { close(leave["old"]); close(leave["new"]) })
	enter := func(want string) {
		t.Helper()
		until(t, want+" comes", func() bool {
			select {
			case got := <-entered:
				return got == want
			default:
				return false
			}
		})
	}
	publish(t, b, "gone", "old")
	enter("old")
	must(t, js.DeleteStream(t.Context(), "test"))
	publish(t, b, "gone", "new")
	enter("new")
	leave["old"] <- nil
	other := subscribe(t, b, "other", func(context.Context, *broker.Message) error { entered <- "other"; return nil }, broker.Queue("q"))
	publish(t, b, "other", "x") // behind what was said
	enter("other")
	acknowledged(t, js, other)
	c, err := js.Consumer(t.Context(), "test", nats.Consumer(sub))
	must(t, err)
	if n := c.CachedInfo().NumAckPending; n != 1 {
		t.Errorf("%d messages wait for their acknowledgement, want the one that a handler has", n)
	}
	leave["new"] <- errors.New("it fails")
	enter("new")
}

// A stream that is gone is made again by the next Publish.
func TestStreamGone(t *testing.T) {
	t.Parallel()
	o, js := streams(t)
	b := open(t, o)
	for range 3 {
		publish(t, b, "gone", "1", "2")
		if n := count(t, js); n != 2 {
			t.Errorf("%d messages are stored, want 2", n)
		}
		must(t, js.DeleteStream(t.Context(), "test"))
	}
}

// A member that is closed gives what it was given back: nothing waits for AckWait.
func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	const n = 3000
	o, _ := streams(t)
	o.Tries = 100
	b := open(t, o)
	var mu sync.Mutex
	got := map[string]bool{}
	handle := func(_ context.Context, m *broker.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got[string(m.Body)] = true
		return nil
	}
	var stop atomic.Bool
	var members sync.WaitGroup
	subscribe(t, b, "jobs", handle, broker.Queue("q"))
	for range 2 {
		member := open(t, o)
		members.Go(func() {
			for !stop.Load() {
				sub, err := member.Subscribe(t.Context(), "jobs", handle, broker.Queue("q"))
				if err != nil {
					t.Errorf("Subscribe: %v", err)
					return
				}
				time.Sleep(time.Millisecond) // it is given some
				if err := sub.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
		})
	}
	for i := 0; i < n; i += 10 {
		var bodies []string
		for j := range 10 {
			bodies = append(bodies, strconv.Itoa(i+j))
		}
		publish(t, b, "jobs", bodies...)
	}
	stop.Store(true)
	members.Wait()
	began := time.Now()
	until(t, "all messages", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == n })
	if took := time.Since(began); took > nats.DefaultAckWait/2 {
		t.Errorf("the last came after %v", took)
	}
}

// Brokers that add their topics to the stream at the same time all succeed, and what stood in it stays.
func TestSubjectsAddUp(t *testing.T) {
	t.Parallel()
	o, js := streams(t)
	const topics = 12
	must(t, second(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "test", Subjects: []string{"old.>"}, MaxMsgs: 1234, Metadata: map[string]string{"owner": "ops"}})))
	var wg sync.WaitGroup
	for i := range topics {
		b := open(t, o)
		wg.Go(func() {
			if _, err := b.Publish(t.Context(), &broker.Message{Topic: fmt.Sprint("topic.", i), Body: []byte("x")}, &broker.Message{Topic: "old.one"}); err != nil {
				t.Errorf("Publish: %v", err)
			}
		})
	}
	wg.Wait()
	s, err := js.Stream(t.Context(), "test")
	must(t, err)
	c := s.CachedInfo().Config
	if c.MaxMsgs != 1234 || c.Metadata["owner"] != "ops" || !slices.Contains(c.Subjects, "old.>") || slices.Contains(c.Subjects, "old.one") {
		t.Errorf("the stream's configuration is %+v", c)
	}
	if n := count(t, js); n != 2*topics {
		t.Errorf("%d messages are stored, want %d", n, 2*topics)
	}
}

// What JetStream refuses is told in words that say what to do.
func TestRefused(t *testing.T) {
	t.Parallel()
	o, js := streams(t)
	must(t, second(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "other", Subjects: []string{"taken.>"}})))
	must(t, second(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "full", Subjects: []string{"full"}, MaxMsgs: 1, Discard: jetstream.DiscardNew})))
	b := open(t, o)
	in := &inbox{}
	_, err := b.Publish(t.Context(), &broker.Message{Topic: "taken.a"})
	if !errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), "stream test: subjects overlap with an existing stream") {
		t.Errorf("Publish to another stream's subject gave %v", err)
	}
	if _, err := b.Subscribe(t.Context(), "taken.a", in.handle); !errors.Is(err, broker.ErrInvalid) {
		t.Errorf("Subscribe to another stream's subject gave %v", err)
	}
	o.Stream = "full"
	full := open(t, o)
	publish(t, full, "full", "1")
	if _, err := full.Publish(t.Context(), &broker.Message{Topic: "full"}); !errors.Is(err, &status.Error{Code: status.ResourceExhausted}) || !strings.Contains(err.Error(), "maximum messages exceeded") {
		t.Errorf("Publish to a stream that is full gave %v", err)
	}
	plain := own(t) // without JetStream
	without := open(t, nats.Options{Servers: []string{plain.Addr}, Stream: "s", Timeout: 200 * time.Millisecond})
	if _, err := without.Publish(t.Context(), &broker.Message{Topic: "a"}); !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "no answer of JetStream: it is not enabled there, or not ready") {
		t.Errorf("Publish without JetStream gave %v", err)
	}
	if _, err := without.Subscribe(t.Context(), "a", in.handle); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("Subscribe without JetStream gave %v", err)
	}
}

// What is no envelope is a dead letter at once; what a dead topic's subscriber does not handle is dropped in the end.
func TestDeadEnds(t *testing.T) {
	t.Parallel()
	o, js := streams(t)
	said := &journal{}
	o.Logger = said.logger()
	b, nc := open(t, o), raw(t, o)
	dead, in := &inbox{}, &inbox{}
	subscribe(t, b, "raw.dead", func(ctx context.Context, m *broker.Message) error {
		_ = dead.handle(ctx, m)
		return errors.New("no")
	}, broker.Queue("morgue"))
	subscribe(t, b, "raw", in.handle, broker.Queue("q"))
	must(t, nc.Publish("raw", []byte("no JSON")))
	must(t, nc.Flush())
	publish(t, b, "raw", "well")
	in.wait(t, 1)
	for _, body := range dead.wait(t, o.Tries) {
		if body != "no JSON" {
			t.Errorf("the dead letter is %q", body)
		}
	}
	until(t, "the logger is told", func() bool { return strings.Contains(said.String(), "a dead letter was not handled, and is dropped") })
	if m := dead.all()[0]; !strings.HasPrefix(m.Header.Get(broker.DeadReasonKey), "it is no envelope: ") || m.ID != "test-1" {
		t.Errorf("the dead letter is %+v", m)
	}
	publish(t, b, "raw", "last")
	in.wait(t, 2)
	if n := count(t, js); n != 4 {
		t.Errorf("%d messages are stored, want 3 and a dead letter", n)
	}
}

// A broken connection neither loses what is published nor doubles it, and acknowledgements that it kept from NATS are said later.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	s := own(t, withStreams)
	relay := testserver.NewRelay(t, s.Addr)
	through := nats.Options{Servers: []string{relay.Addr}, Stream: "test", Timeout: patience}
	direct := nats.Options{Servers: []string{s.Addr}, Stream: "test"}
	var mu sync.Mutex
	got := map[string]int{}
	subscribe(t, open(t, direct), "broken", func(_ context.Context, m *broker.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got[string(m.Body)]++
		return nil
	}, broker.Queue("direct"))
	publishers := open(t, through)
	publish(t, publishers, "broken", "first")
	var stop atomic.Bool
	var breaking sync.WaitGroup
	breaking.Go(func() {
		for !stop.Load() {
			time.Sleep(20 * time.Millisecond) // it breaks off what is under way
			relay.Kill()
			relay.Revive()
		}
	})
	const n = 60
	var all []string
	for i := range n {
		var bodies []string
		for j := range 20 {
			bodies = append(bodies, fmt.Sprint(i, ".", j))
		}
		for { // while it is away a Publish fails
			ms := make([]*broker.Message, len(bodies))
			for j, body := range bodies {
				ms[j] = &broker.Message{Topic: "broken", ID: body, Body: []byte(body)}
			}
			if _, err := publishers.Publish(t.Context(), ms...); err == nil {
				break
			} else if !errors.Is(err, broker.ErrUnavailable) {
				t.Fatalf("Publish gave %v", err)
			}
		}
		all = append(all, bodies...)
	}
	stop.Store(true)
	breaking.Wait()
	until(t, "all messages", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == len(all)+1 })
	mu.Lock()
	for _, id := range all {
		if got[id] != 1 {
			t.Errorf("message %s came %d times", id, got[id])
		}
	}
	mu.Unlock()

	in, entered, leave := &inbox{}, make(chan struct{}, 10), make(chan struct{})
	subscriber := open(t, through)
	subscribe(t, subscriber, "acks", func(ctx context.Context, m *broker.Message) error {
		_ = in.handle(ctx, m)
		entered <- struct{}{}
		<-leave
		return nil
	}, broker.Concurrency(1)) // without an acknowledgement of the first the second comes after AckWait, which is longer than this waits
	b := open(t, direct)
	publish(t, b, "acks", "1")
	<-entered
	relay.Kill()
	close(leave)
	publish(t, b, "acks", "2")
	time.Sleep(50 * time.Millisecond) // the handler returns while there is no connection
	relay.Revive()
	began := time.Now()
	if bodies := in.wait(t, 2); strings.Join(bodies, " ") != "1 2" || time.Since(began) > nats.DefaultAckWait*2/3 {
		t.Errorf("got %q after %v", bodies, time.Since(began))
	}
}

// A subscriber whose connection breaks again and again gets all, and goes on at once when it is whole.
func TestBrokenSubscriber(t *testing.T) {
	t.Parallel()
	const n = 2000
	s := own(t, withStreams)
	relay := testserver.NewRelay(t, s.Addr)
	var mu sync.Mutex
	got := map[string]bool{}
	subscribe(t, open(t, nats.Options{Servers: []string{relay.Addr}, Stream: "test", AckWait: time.Second, Tries: 1000}), "flow", func(_ context.Context, m *broker.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got[string(m.Body)] = true
		return nil
	}, broker.Queue("q"), broker.Concurrency(4))
	b := open(t, nats.Options{Servers: []string{s.Addr}, Stream: "test"})
	for i := 0; i < n; i += 20 {
		var bodies []string
		for j := range 20 {
			bodies = append(bodies, strconv.Itoa(i+j))
		}
		publish(t, b, "flow", bodies...)
		if i%200 == 0 {
			relay.Kill()
			relay.Revive()
		}
	}
	began := time.Now()
	until(t, "all messages", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == n })
	if took := time.Since(began); took > 15*time.Second { // less than a pull stands
		t.Errorf("the last came after %v", took)
	}
}

// Names that NATS does not take are written otherwise, and stay apart.
func TestNames(t *testing.T) {
	t.Parallel()
	o, _ := streams(t)
	b := open(t, o)
	long := strings.Repeat("x", 120)
	var all []*inbox
	topics := []string{"a.b", "a", "a.", "a..b", "a/b", "a-b.", "A", long + ".1", long + ".2"}
	for _, topic := range topics {
		for _, queue := range []string{"q", "q.r", "q/r", long} {
			in := &inbox{}
			subscribe(t, b, topic, in.handle, broker.Queue(queue))
			all = append(all, in)
		}
	}
	for i, topic := range topics {
		publish(t, b, topic, strconv.Itoa(i))
	}
	for i, in := range all {
		if got := in.wait(t, 1); len(got) != 1 || got[0] != strconv.Itoa(i/4) {
			t.Errorf("the subscriber of %s got %q, want %d", topics[i/4], got, i/4)
		}
	}
}

// At core NATS a topic with empty words is one of its own too.
func TestEmptyWords(t *testing.T) {
	t.Parallel()
	o := account(t)
	b, nc := open(t, o), raw(t, o)
	got := make(chan *natsgo.Msg, 10)
	sub, err := nc.ChanSubscribe(">", got)
	must(t, err)
	defer sub.Unsubscribe()
	must(t, nc.Flush())
	publish(t, b, "a..b.", "x")
	if m := <-got; m.Subject != "a.~.b.~" {
		t.Errorf("the subject is %q", m.Subject)
	}
}
