package nsq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/nsq"
)

// What go-micro's broker on NSQ sends for a message with these headers.
const theirs = `{"Header":{"Content-Type":"application/json","Micro-Id":"abc","Micro-Topic":"gm.out","Trace":"x"},"Body":"eyJhIjoxfQ=="}`

// TestGoMicro: a message of go-micro, by the library that it uses, arrives, and what is published is what it reads.
func TestGoMicro(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{})
	b, in := open(t, quick(d.addr)), &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "gm.out", in.Handle)
	quiet := log.New(io.Discard, "", 0)
	producer, err := gonsq.NewProducer(d.addr, gonsq.NewConfig())
	must(t, err)
	defer producer.Stop()
	producer.SetLogger(quiet, gonsq.LogLevelError)
	must(t, producer.Publish("gm.out", []byte(theirs)))
	in.Wait(t, 1)
	m := in.All()[0]
	if m.ID != "abc" || m.Topic != "gm.out" || string(m.Body) != `{"a":1}` || m.Header.Len() != 2 || m.Header.Get("trace") != "x" || m.Header.Get("content-type") != "application/json" {
		t.Errorf("got %+v", m)
	}
	consumer, err := gonsq.NewConsumer("gm.in", "q", gonsq.NewConfig())
	must(t, err)
	consumer.SetLogger(quiet, gonsq.LogLevelError)
	bodies := make(chan []byte, 10)
	consumer.AddHandler(gonsq.HandlerFunc(func(m *gonsq.Message) error { bodies <- m.Body; return nil }))
	must(t, consumer.ConnectToNSQD(d.addr))
	id := brokertest.Publish(t, b, "gm.in", "hello").ID
	var got struct {
		Header map[string]string
		Body   []byte
	}
	must(t, json.Unmarshal(<-bodies, &got))
	if string(got.Body) != "hello" || got.Header["Micro-ID"] != id || got.Header["Micro-Topic"] != "gm.in" || got.Header["Content-Type"] != "text/plain" || len(got.Header) != 3 {
		t.Errorf("go-micro gets %+v", got)
	}
	consumer.Stop()
	<-consumer.StopChan
}

// Names that NSQ does not take are written otherwise, and stay apart.
func TestNames(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{})
	b := open(t, quick(d.addr))
	long := strings.Repeat("x", 120)
	topics := []string{"a.b", "a/b", "a_2Fb", "a_5F2Fb", "a_/b", "a_7E", "A/B", long + "/1", long + "/2"}
	queues := []string{"q", "q/r", "q_2Fr", long}
	var all []*brokertest.Inbox
	for _, topic := range topics {
		for _, queue := range queues {
			in := &brokertest.Inbox{}
			brokertest.Subscribe(t, b, topic, in.Handle, broker.Queue(queue))
			all = append(all, in)
		}
	}
	for i, topic := range topics {
		brokertest.Publish(t, b, topic, fmt.Sprint(i))
	}
	for i, in := range all {
		if got := in.Wait(t, 1); len(got) != 1 || got[0] != fmt.Sprint(i/len(queues)) {
			t.Errorf("the subscriber of %s got %q, want %d", topics[i/len(queues)], got, i/len(queues))
		}
	}
	if names := d.names(); !slices.Contains(names, "a.b:q") || !slices.Contains(names, "a_2Fb:q_2Fr") {
		t.Errorf("NSQ has %q", names)
	}
}

// Of several nsqd's one that is away, or stops, is passed over; what it may have taken is not sent to another.
func TestSeveral(t *testing.T) {
	t.Parallel()
	first, second := startNSQD(t, config{}), startNSQD(t, config{})
	o := quick(first.addr, second.addr)
	b, in := open(t, o), &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "several", in.Handle, broker.Queue("q"))
	brokertest.Publish(t, b, "several", "0")
	in.Wait(t, 1)
	published, other := first, second
	if first.heard("PUB") == 0 {
		published, other = second, first
	}
	published.configure(func(c *config) { c.refuse = "E_PUB_FAILED PUB failed exiting" })
	brokertest.Publish(t, b, "several", "1")
	published.configure(func(c *config) { c.refuse = "" })
	published.kill()
	brokertest.Publish(t, b, "several", "2", "3")
	in.Wait(t, 4)
	other.kill()
	brokertest.Until(t, "Publish names both", func() bool { // the first may go to a connection that is breaking
		_, err := b.Publish(t.Context(), &broker.Message{Topic: "several"})
		if !errors.Is(err, broker.ErrUnavailable) {
			t.Fatalf("without an nsqd Publish gave %v", err)
		}
		return strings.Contains(err.Error(), first.addr+" is not answering") && strings.Contains(err.Error(), second.addr+" is not answering")
	})
	if _, err := b.Subscribe(t.Context(), "several", in.Handle); !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), first.addr) {
		t.Errorf("without an nsqd Subscribe gave %v", err)
	}
	published.start(t)
	brokertest.Until(t, "the subscription stands again", func() bool {
		brokertest.Publish(t, b, "several", "4")
		return slices.Contains(in.Wait(t, 0), "4")
	})
}

// A Publish that nsqd does not confirm fails in time, says that it is not known, and is not sent again.
func TestUnconfirmed(t *testing.T) {
	t.Parallel()
	first, second := startNSQD(t, config{silent: true}), startNSQD(t, config{silent: true})
	o := quick(first.addr, second.addr)
	o.Timeout = 300 * time.Millisecond
	b, in := open(t, o), &brokertest.Inbox{}
	later := quick(first.addr, second.addr)
	brokertest.Subscribe(t, open(t, later), "silent", in.Handle, broker.Queue("q"))
	_, err := b.Publish(t.Context(), &broker.Message{Topic: "silent", Body: []byte("x")})
	if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "has not confirmed, and may have it: no answer in time") {
		t.Errorf("Publish gave %v", err)
	}
	in.Wait(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Publish(ctx, &broker.Message{Topic: "silent", Body: []byte("y")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that ends Publish gave %v", err)
	}
	in.Wait(t, 2)
	if n := first.heard("PUB") + second.heard("PUB"); n != 2 {
		t.Errorf("nsqd's were sent %d messages, want 2", n)
	}
}

// A message that is too large for nsqd is refused, and no other message with it.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{maxMessage: 10_000})
	b := open(t, quick(d.addr))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				brokertest.Publish(t, b, "large", "small")
			}
		})
	}
	for range 5 {
		large := &broker.Message{Topic: "large", Body: make([]byte, 10_000)}
		for _, ms := range [][]*broker.Message{{large}, {{Topic: "large"}, large}} {
			if _, err := b.Publish(t.Context(), ms...); !errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), "message too big") {
				t.Errorf("Publish gave %v", err)
			}
		}
	}
	wg.Wait()
	in := &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "large", in.Handle, broker.Queue("q"))
	if got := in.Wait(t, 400); len(got) != 400 {
		t.Errorf("%d messages came, want 400: none is lost, and none is sent twice", len(got))
	}
}

// A handler may run for longer than AckWait, and its message comes once.
func TestLongHandler(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{timeout: 3 * time.Second})
	b := open(t, quick(d.addr))
	var runs atomic.Int64
	done := make(chan struct{})
	brokertest.Subscribe(t, b, "long", func(context.Context, *broker.Message) error {
		if runs.Add(1) == 1 {
			brokertest.Until(t, "the message is touched", func() bool { return d.heard("TOUCH") >= 6 })
			close(done)
		}
		return nil
	}, broker.Queue("q"))
	brokertest.Publish(t, b, "long", "x")
	<-done
	brokertest.Until(t, "it is finished", func() bool { return d.heard("FIN") > 0 })
	if n := runs.Load(); n != 1 {
		t.Errorf("the message came %d times", n)
	}
}

// What a subscriber had that has lost its connection goes to another after AckWait.
func TestSubscriberDies(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{timeout: 300 * time.Millisecond})
	relay := testserver.NewRelay(t, d.addr)
	entered, release := make(chan struct{}, 10), make(chan struct{})
	brokertest.Subscribe(t, open(t, quick(relay.Addr)), "dies", func(context.Context, *broker.Message) error {
		entered <- struct{}{}
		<-release
		return nil
	}, broker.Queue("q"))
	b := open(t, quick(d.addr))
	brokertest.Publish(t, b, "dies", "x")
	<-entered
	relay.Kill()
	in := &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "dies", in.Handle, broker.Queue("q"))
	if got := in.Wait(t, 1); got[0] != "x" {
		t.Errorf("got %q", got)
	}
	close(release)
}

// What a handler has handled when the connection is gone is not handled by it again.
func TestHandledMeanwhile(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{})
	said := &brokertest.Journal{}
	o := quick(d.addr)
	o.Logger = said.Logger()
	b, in := open(t, o), &brokertest.Inbox{}
	entered, release := make(chan struct{}, 10), make(chan struct{})
	brokertest.Subscribe(t, b, "meanwhile", func(ctx context.Context, m *broker.Message) error {
		entered <- struct{}{}
		<-release
		return in.Handle(ctx, m)
	}, broker.Queue("q"))
	brokertest.Publish(t, b, "meanwhile", "first")
	<-entered
	d.kill()
	brokertest.Until(t, "the subscription notices", func() bool { return said.Has("the connection to nsqd is lost") })
	close(release)
	in.Wait(t, 1)
	d.start(t)
	brokertest.Until(t, "the message is finished", func() bool { return d.heard("FIN") > 0 })
	brokertest.Publish(t, b, "meanwhile", "second")
	if got := in.Wait(t, 2); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("got %q", got)
	}
}

// What is no envelope, and what its handler's process died of, are dead letters.
func TestDead(t *testing.T) {
	t.Parallel()
	said := &brokertest.Journal{}
	d := startNSQD(t, config{timeout: 50 * time.Millisecond})
	o := quick(d.addr)
	o.Logger = said.Logger()
	b, in, dead := open(t, o), &brokertest.Inbox{}, &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "poison.dead", dead.Handle)
	producer, err := gonsq.NewProducer(d.addr, gonsq.NewConfig())
	must(t, err)
	defer producer.Stop()
	producer.SetLogger(log.New(io.Discard, "", 0), gonsq.LogLevelError)
	must(t, producer.Publish("poison", []byte("no envelope")))
	brokertest.Subscribe(t, b, "poison", in.Handle, broker.Queue("q"))
	dead.Wait(t, 1)
	m := dead.All()[0]
	if string(m.Body) != "no envelope" || m.Header.Get(broker.DeadQueueKey) != "q" || !strings.Contains(m.Header.Get(broker.DeadReasonKey), "it is no envelope") {
		t.Errorf("the dead letter is %+v", m)
	}

	// A process that takes a message, and never answers.
	silent, err := net.Dial("tcp", d.addr)
	must(t, err)
	identify, err := gonsq.Identify(map[string]any{"heartbeat_interval": 30_000})
	must(t, err)
	_, err = silent.Write(gonsq.MagicV2)
	must(t, err)
	for _, cmd := range []*gonsq.Command{identify, gonsq.Subscribe("killer", "q"), gonsq.Ready(10)} {
		_, err = cmd.WriteTo(silent)
		must(t, err)
	}
	brokertest.Publish(t, b, "killer", "x")
	brokertest.Until(t, "its tries are used up", func() bool { return d.attempts("killer", "q") >= 4 })
	must(t, silent.Close())
	brokertest.Subscribe(t, b, "killer.dead", dead.Handle)
	brokertest.Subscribe(t, b, "killer", in.Handle, broker.Queue("q"))
	dead.Wait(t, 2)
	m = dead.All()[1]
	if string(m.Body) != "x" || m.Header.Get(broker.DeadTriesKey) != "4" || !strings.Contains(m.Header.Get(broker.DeadReasonKey), "went away, or did not answer") {
		t.Errorf("the dead letter is %+v", m)
	}
	if len(in.All()) != 0 {
		t.Errorf("the handler got %q", in.Wait(t, 0))
	}
}

// A connection that nsqd only hears of by heartbeats stays; one that is silent is given up by the next Publish.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{heartbeat: 10 * time.Millisecond})
	said := &brokertest.Journal{}
	o := quick(d.addr)
	o.Logger = said.Logger()
	b, in := open(t, o), &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "quiet", in.Handle)
	brokertest.Publish(t, b, "quiet", "x")
	brokertest.Until(t, "heartbeats are answered", func() bool { return d.heard("NOP") > 20 })
	brokertest.Publish(t, b, "quiet", "y")
	in.Wait(t, 2)
	if said.Has("lost") {
		t.Errorf("a connection was lost:\n%s", said)
	}
}

// No more messages are under way than handlers may run, also beside one that does not return.
func TestBounds(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{})
	b, in := open(t, quick(d.addr)), &brokertest.Inbox{}
	hang := make(chan struct{})
	defer close(hang)
	var once sync.Once
	brokertest.Subscribe(t, b, "bounds", func(ctx context.Context, m *broker.Message) error {
		first := false
		once.Do(func() { first = true })
		if first {
			<-hang
		}
		if n := d.flying("bounds", "q"); n > 3 {
			t.Errorf("%d messages are under way, want 3 at most", n)
		}
		return in.Handle(ctx, m)
	}, broker.Queue("q"), broker.Concurrency(3), broker.Timeout(100*time.Millisecond))
	for i := range 100 {
		brokertest.Publish(t, b, "bounds", fmt.Sprint(i))
	}
	in.Wait(t, 100) // the one that hangs comes again
	if n := d.flying("bounds", "q"); n > 1 {
		t.Errorf("%d messages are under way", n)
	}
}

// With lookupd alone messages are published to an nsqd that it lists, and found there; also by who has subscribed before.
func TestLookupAlone(t *testing.T) {
	t.Parallel()
	first, second := startNSQD(t, config{}), startNSQD(t, config{})
	addr := lookupd(t, first, second)
	o := nsq.Options{Lookupd: []string{addr, testserver.FreeAddr()}, LookupInterval: 30 * time.Millisecond, RetryWait: time.Millisecond}
	b, before, after := open(t, o), &brokertest.Inbox{}, &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "found", before.Handle, broker.Queue("q"))
	brokertest.Publish(t, b, "found", "x")
	before.Wait(t, 1)
	brokertest.Subscribe(t, b, "found", after.Handle)
	brokertest.Publish(t, b, "found", "y")
	if got := after.Wait(t, 1); got[0] != "y" {
		t.Errorf("got %q", got)
	}
	before.Wait(t, 2)

	o.Lookupd = o.Lookupd[1:]
	b = open(t, o)
	_, published := b.Publish(t.Context(), &broker.Message{Topic: "found"})
	_, subscribed := b.Subscribe(t.Context(), "found", before.Handle)
	for _, err := range []error{published, subscribed} {
		if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "lookupd "+o.Lookupd[0]+" is not answering: connection refused") {
			t.Errorf("without a lookupd: %v", err)
		}
	}
	none := open(t, nsq.Options{Lookupd: []string{lookupd(t)}})
	if _, err := none.Publish(t.Context(), &broker.Message{Topic: "found"}); !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "knows no nsqd") {
		t.Errorf("with a lookupd that knows nobody Publish gave %v", err)
	}
}

// What was published before does not come to a subscription without a queue, whatever nsqd's clock says, and does to the first queue.
func TestBacklog(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour} {
		d := startNSQD(t, config{clock: ahead})
		b := open(t, quick(d.addr))
		for range 20 {
			brokertest.Publish(t, b, "alone", "before")
			brokertest.Publish(t, b, "queue", "before")
		}
		alone, queue := &brokertest.Inbox{}, &brokertest.Inbox{}
		brokertest.Subscribe(t, b, "alone", alone.Handle)
		brokertest.Publish(t, b, "alone", "after")
		if got := alone.Wait(t, 1); got[0] != "after" {
			t.Errorf("with a clock %v ahead %q came first", ahead, got[0])
		}
		brokertest.Subscribe(t, b, "queue", queue.Handle, broker.Queue("q"))
		brokertest.Publish(t, b, "queue", "after")
		queue.Wait(t, 21)
		if names := d.names(); slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "micro.clock") }) {
			brokertest.Until(t, "the clock's topic goes", func() bool {
				return !slices.ContainsFunc(d.names(), func(n string) bool { return strings.HasPrefix(n, "micro.clock") })
			})
		}
	}
}

// A subscription without a queue stands again when its connection breaks, and its channel goes with it in the end.
func TestBreaks(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{})
	b, in := open(t, quick(d.addr)), &brokertest.Inbox{}
	sub := brokertest.Subscribe(t, b, "breaks", in.Handle)
	for i := range 5 {
		d.breakOff()
		brokertest.Until(t, "a message comes", func() bool {
			_, _ = b.Publish(t.Context(), &broker.Message{Topic: "breaks", Body: fmt.Append(nil, i)})
			time.Sleep(time.Millisecond)
			return slices.Contains(in.Wait(t, 0), fmt.Sprint(i))
		})
	}
	must(t, sub.Close())
	brokertest.Until(t, "NSQ has the topic alone", func() bool { return len(d.names()) == 1 })
}

// A dead letter that cannot be published is not lost: its message comes again.
func TestDeadLetterFails(t *testing.T) {
	t.Parallel()
	said := &brokertest.Journal{}
	d := startNSQD(t, config{})
	o := quick(d.addr)
	o.Tries, o.Logger = 1, said.Logger()
	b := open(t, o)
	brokertest.Subscribe(t, b, "stuck", func(context.Context, *broker.Message) error { return errors.New("no") }, broker.Queue("q"))
	brokertest.Publish(t, b, "other", "x") // the connection stands
	d.configure(func(c *config) { c.maxMessage = 230 })
	brokertest.Publish(t, b, "stuck", strings.Repeat("x", 50))
	brokertest.Until(t, "the message is put back", func() bool { return d.heard("REQ") > 0 })
	if !said.Has("a dead letter cannot be published, and its message comes again") || !said.Has("message too big") {
		t.Errorf("the logger was told:\n%s", said)
	}
}
