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
	"github.com/cb02dfca/micro/pkg/broker/nsq"
)

// What go-micro's broker on NSQ sends for a message with these headers.
const theirs = `{"Header":{"Content-Type":"application/json","Micro-Id":"abc","Micro-Topic":"gm.out","Trace":"x"},"Body":"eyJhIjoxfQ=="}`

// TestGoMicro: a message of go-micro, by the library that it uses, arrives, and what is published is what it reads.
func TestGoMicro(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{})
	b, in := open(t, quick(d.addr)), &inbox{}
	subscribe(t, b, "gm.out", in.handle)
	quiet := log.New(io.Discard, "", 0)
	producer, err := gonsq.NewProducer(d.addr, gonsq.NewConfig())
	must(t, err)
	defer producer.Stop()
	producer.SetLogger(quiet, gonsq.LogLevelError)
	must(t, producer.Publish("gm.out", []byte(theirs)))
	in.wait(t, 1)
	m := in.all()[0]
	if m.ID != "abc" || m.Topic != "gm.out" || string(m.Body) != `{"a":1}` || m.Header.Len() != 2 || m.Header.Get("trace") != "x" || m.Header.Get("content-type") != "application/json" {
		t.Errorf("got %+v", m)
	}
	consumer, err := gonsq.NewConsumer("gm.in", "q", gonsq.NewConfig())
	must(t, err)
	consumer.SetLogger(quiet, gonsq.LogLevelError)
	bodies := make(chan []byte, 10)
	consumer.AddHandler(gonsq.HandlerFunc(func(m *gonsq.Message) error { bodies <- m.Body; return nil }))
	must(t, consumer.ConnectToNSQD(d.addr))
	id := publish(t, b, "gm.in", "hello").ID
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
	var all []*inbox
	for _, topic := range topics {
		for _, queue := range queues {
			in := &inbox{}
			subscribe(t, b, topic, in.handle, broker.Queue(queue))
			all = append(all, in)
		}
	}
	for i, topic := range topics {
		publish(t, b, topic, fmt.Sprint(i))
	}
	for i, in := range all {
		if got := in.wait(t, 1); len(got) != 1 || got[0] != fmt.Sprint(i/len(queues)) {
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
	b, in := open(t, o), &inbox{}
	subscribe(t, b, "several", in.handle, broker.Queue("q"))
	publish(t, b, "several", "0")
	in.wait(t, 1)
	published, other := first, second
	if first.heard("PUB") == 0 {
		published, other = second, first
	}
	published.configure(func(c *config) { c.refuse = "E_PUB_FAILED PUB failed exiting" })
	publish(t, b, "several", "1")
	published.configure(func(c *config) { c.refuse = "" })
	published.kill()
	publish(t, b, "several", "2", "3")
	in.wait(t, 4)
	other.kill()
	until(t, "Publish names both", func() bool { // the first may go to a connection that is breaking
		_, err := b.Publish(t.Context(), &broker.Message{Topic: "several"})
		if !errors.Is(err, broker.ErrUnavailable) {
			t.Fatalf("without an nsqd Publish gave %v", err)
		}
		return strings.Contains(err.Error(), first.addr+" is not answering") && strings.Contains(err.Error(), second.addr+" is not answering")
	})
	if _, err := b.Subscribe(t.Context(), "several", in.handle); !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), first.addr) {
		t.Errorf("without an nsqd Subscribe gave %v", err)
	}
	published.start(t)
	until(t, "the subscription stands again", func() bool {
		publish(t, b, "several", "4")
		return slices.Contains(in.wait(t, 0), "4")
	})
}

// A Publish that nsqd does not confirm fails in time, says that it is not known, and is not sent again.
func TestUnconfirmed(t *testing.T) {
	t.Parallel()
	first, second := startNSQD(t, config{silent: true}), startNSQD(t, config{silent: true})
	o := quick(first.addr, second.addr)
	o.Timeout = 300 * time.Millisecond
	b, in := open(t, o), &inbox{}
	later := quick(first.addr, second.addr)
	subscribe(t, open(t, later), "silent", in.handle, broker.Queue("q"))
	_, err := b.Publish(t.Context(), &broker.Message{Topic: "silent", Body: []byte("x")})
	if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "has not confirmed, and may have it: no answer in time") {
		t.Errorf("Publish gave %v", err)
	}
	in.wait(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Publish(ctx, &broker.Message{Topic: "silent", Body: []byte("y")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that ends Publish gave %v", err)
	}
	in.wait(t, 2)
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
				publish(t, b, "large", "small")
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
	in := &inbox{}
	subscribe(t, b, "large", in.handle, broker.Queue("q"))
	if got := in.wait(t, 400); len(got) != 400 {
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
	subscribe(t, b, "long", func(context.Context, *broker.Message) error {
		if runs.Add(1) == 1 {
			until(t, "the message is touched", func() bool { return d.heard("TOUCH") >= 6 })
			close(done)
		}
		return nil
	}, broker.Queue("q"))
	publish(t, b, "long", "x")
	<-done
	until(t, "it is finished", func() bool { return d.heard("FIN") > 0 })
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
	subscribe(t, open(t, quick(relay.Addr)), "dies", func(context.Context, *broker.Message) error {
		entered <- struct{}{}
		<-release
		return nil
	}, broker.Queue("q"))
	b := open(t, quick(d.addr))
	publish(t, b, "dies", "x")
	<-entered
	relay.Kill()
	in := &inbox{}
	subscribe(t, b, "dies", in.handle, broker.Queue("q"))
	if got := in.wait(t, 1); got[0] != "x" {
		t.Errorf("got %q", got)
	}
	close(release)
}

// What a handler has handled when the connection is gone is not handled by it again.
func TestHandledMeanwhile(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{})
	said := &journal{}
	o := quick(d.addr)
	o.Logger = said.logger()
	b, in := open(t, o), &inbox{}
	entered, release := make(chan struct{}, 10), make(chan struct{})
	subscribe(t, b, "meanwhile", func(ctx context.Context, m *broker.Message) error {
		entered <- struct{}{}
		<-release
		return in.handle(ctx, m)
	}, broker.Queue("q"))
	publish(t, b, "meanwhile", "first")
	<-entered
	d.kill()
	until(t, "the subscription notices", func() bool { return said.has("the connection to nsqd is lost") })
	close(release)
	in.wait(t, 1)
	d.start(t)
	until(t, "the message is finished", func() bool { return d.heard("FIN") > 0 })
	publish(t, b, "meanwhile", "second")
	if got := in.wait(t, 2); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("got %q", got)
	}
}

// What is no envelope, and what its handler's process died of, are dead letters.
func TestDead(t *testing.T) {
	t.Parallel()
	said := &journal{}
	d := startNSQD(t, config{timeout: 50 * time.Millisecond})
	o := quick(d.addr)
	o.Logger = said.logger()
	b, in, dead := open(t, o), &inbox{}, &inbox{}
	subscribe(t, b, "poison.dead", dead.handle)
	producer, err := gonsq.NewProducer(d.addr, gonsq.NewConfig())
	must(t, err)
	defer producer.Stop()
	producer.SetLogger(log.New(io.Discard, "", 0), gonsq.LogLevelError)
	must(t, producer.Publish("poison", []byte("no envelope")))
	subscribe(t, b, "poison", in.handle, broker.Queue("q"))
	dead.wait(t, 1)
	m := dead.all()[0]
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
	publish(t, b, "killer", "x")
	until(t, "its tries are used up", func() bool { return d.attempts("killer", "q") >= 4 })
	must(t, silent.Close())
	subscribe(t, b, "killer.dead", dead.handle)
	subscribe(t, b, "killer", in.handle, broker.Queue("q"))
	dead.wait(t, 2)
	m = dead.all()[1]
	if string(m.Body) != "x" || m.Header.Get(broker.DeadTriesKey) != "4" || !strings.Contains(m.Header.Get(broker.DeadReasonKey), "went away, or did not answer") {
		t.Errorf("the dead letter is %+v", m)
	}
	if len(in.all()) != 0 {
		t.Errorf("the handler got %q", in.wait(t, 0))
	}
}

// A connection that nsqd only hears of by heartbeats stays; one that is silent is given up by the next Publish.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{heartbeat: 10 * time.Millisecond})
	said := &journal{}
	o := quick(d.addr)
	o.Logger = said.logger()
	b, in := open(t, o), &inbox{}
	subscribe(t, b, "quiet", in.handle)
	publish(t, b, "quiet", "x")
	until(t, "heartbeats are answered", func() bool { return d.heard("NOP") > 20 })
	publish(t, b, "quiet", "y")
	in.wait(t, 2)
	if said.has("lost") {
		t.Errorf("a connection was lost:\n%s", said)
	}
}

// No more messages are under way than handlers may run, also beside one that does not return.
func TestBounds(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{})
	b, in := open(t, quick(d.addr)), &inbox{}
	hang := make(chan struct{})
	defer close(hang)
	var once sync.Once
	subscribe(t, b, "bounds", func(ctx context.Context, m *broker.Message) error {
		first := false
		once.Do(func() { first = true })
		if first {
			<-hang
		}
		if n := d.flying("bounds", "q"); n > 3 {
			t.Errorf("%d messages are under way, want 3 at most", n)
		}
		return in.handle(ctx, m)
	}, broker.Queue("q"), broker.Concurrency(3), broker.Timeout(100*time.Millisecond))
	for i := range 100 {
		publish(t, b, "bounds", fmt.Sprint(i))
	}
	in.wait(t, 100) // the one that hangs comes again
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
	b, before, after := open(t, o), &inbox{}, &inbox{}
	subscribe(t, b, "found", before.handle, broker.Queue("q"))
	publish(t, b, "found", "x")
	before.wait(t, 1)
	subscribe(t, b, "found", after.handle)
	publish(t, b, "found", "y")
	if got := after.wait(t, 1); got[0] != "y" {
		t.Errorf("got %q", got)
	}
	before.wait(t, 2)

	o.Lookupd = o.Lookupd[1:]
	b = open(t, o)
	_, published := b.Publish(t.Context(), &broker.Message{Topic: "found"})
	_, subscribed := b.Subscribe(t.Context(), "found", before.handle)
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
			publish(t, b, "alone", "before")
			publish(t, b, "queue", "before")
		}
		alone, queue := &inbox{}, &inbox{}
		subscribe(t, b, "alone", alone.handle)
		publish(t, b, "alone", "after")
		if got := alone.wait(t, 1); got[0] != "after" {
			t.Errorf("with a clock %v ahead %q came first", ahead, got[0])
		}
		subscribe(t, b, "queue", queue.handle, broker.Queue("q"))
		publish(t, b, "queue", "after")
		queue.wait(t, 21)
		if names := d.names(); slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "micro.clock") }) {
			until(t, "the clock's topic goes", func() bool {
				return !slices.ContainsFunc(d.names(), func(n string) bool { return strings.HasPrefix(n, "micro.clock") })
			})
		}
	}
}

// A subscription without a queue stands again when its connection breaks, and its channel goes with it in the end.
func TestBreaks(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{})
	b, in := open(t, quick(d.addr)), &inbox{}
	sub := subscribe(t, b, "breaks", in.handle)
	for i := range 5 {
		d.breakOff()
		until(t, "a message comes", func() bool {
			_, _ = b.Publish(t.Context(), &broker.Message{Topic: "breaks", Body: fmt.Append(nil, i)})
			time.Sleep(time.Millisecond)
			return slices.Contains(in.wait(t, 0), fmt.Sprint(i))
		})
	}
	must(t, sub.Close())
	until(t, "NSQ has the topic alone", func() bool { return len(d.names()) == 1 })
}

// A dead letter that cannot be published is not lost: its message comes again.
func TestDeadLetterFails(t *testing.T) {
	t.Parallel()
	said := &journal{}
	d := startNSQD(t, config{})
	o := quick(d.addr)
	o.Tries, o.Logger = 1, said.logger()
	b := open(t, o)
	subscribe(t, b, "stuck", func(context.Context, *broker.Message) error { return errors.New("no") }, broker.Queue("q"))
	publish(t, b, "other", "x") // the connection stands
	d.configure(func(c *config) { c.maxMessage = 230 })
	publish(t, b, "stuck", strings.Repeat("x", 50))
	until(t, "the message is put back", func() bool { return d.heard("REQ") > 0 })
	if !said.has("a dead letter cannot be published, and its message comes again") || !said.has("message too big") {
		t.Errorf("the logger was told:\n%s", said)
	}
}
