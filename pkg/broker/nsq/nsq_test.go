package nsq_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/nsq"
	"github.com/cb02dfca/micro/pkg/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var can = brokertest.Capabilities{Several: true, Keeps: true, Redelivers: true, Tries: 4}

// quick are options for tests, which do not wait long for a message to come again.
func quick(servers ...string) nsq.Options {
	return nsq.Options{Servers: servers, Tries: 4, RetryWait: 20 * time.Millisecond, AckWait: 2 * time.Second}
}

func TestBroker(t *testing.T) {
	brokertest.Run(t, brokertest.Harness{
		Can: can,
		New: func(t *testing.T) func() broker.Broker {
			d := startNSQD(t, config{})
			return func() broker.Broker { return open(t, quick(d.addr)) }
		},
		Server: func(t *testing.T) brokertest.Server {
			d := startNSQD(t, config{})
			return brokertest.Server{Open: func() broker.Broker { return open(t, quick(d.addr)) }, Kill: d.kill, Start: func() { d.start(t) }}
		},
	})
}

// TestDiscovered is the suite with several nsqd's, which are found by lookupd beside one that is named.
func TestDiscovered(t *testing.T) {
	brokertest.Run(t, brokertest.Harness{
		Can: can,
		New: func(t *testing.T) func() broker.Broker {
			first, second := startNSQD(t, config{}), startNSQD(t, config{clock: time.Hour})
			o := quick(first.addr)
			o.Lookupd, o.LookupInterval = []string{lookupd(t, first, second)}, 50*time.Millisecond
			return func() broker.Broker { return open(t, o) }
		},
	})
}

// TestNSQD is the suite with the nsqd that NSQD names. It is stopped as its tools do: one that is killed loses what it had in memory.
func TestNSQD(t *testing.T) {
	binary := os.Getenv("NSQD")
	if binary == "" {
		t.Skip("NSQD names no nsqd")
	}
	spec := func(flags ...string) testserver.Spec {
		return testserver.Spec{Ready: testserver.Listening, Command: func(s *testserver.Server) (argv, env []string) {
			data := filepath.Join(s.Dir, "data")
			_ = os.MkdirAll(data, 0o700)
			return append([]string{binary, "--tcp-address=" + s.Addr, "--http-address=127.0.0.1:0", "--data-path=" + data, "--max-msg-size=8388608",
				"--max-body-size=16777216", "--broadcast-address=127.0.0.1"}, flags...), nil
		}}
	}
	brokertest.Run(t, brokertest.Harness{
		Can: can,
		New: func(t *testing.T) func() broker.Broker {
			d := testserver.Own(t, spec())
			return func() broker.Broker { return open(t, quick(d.Addr)) }
		},
		Server: func(t *testing.T) brokertest.Server {
			d := testserver.Own(t, spec())
			return brokertest.Server{Open: func() broker.Broker { return open(t, quick(d.Addr)) }, Kill: func() { d.Stop("TERM") }, Start: func() { d.MustStart(t) }}
		},
	})
}

// open makes a broker until the end of the test.
func open(t testing.TB, o nsq.Options) *nsq.Broker {
	t.Helper()
	b, err := nsq.New(o)
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const patience = 30 * time.Second

// until waits for ok.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// inbox collects messages.
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
func (in *inbox) wait(t testing.TB, n int) (bodies []string) {
	t.Helper()
	until(t, fmt.Sprint(n, " messages"), func() bool { return len(in.all()) >= n })
	for _, m := range in.all() {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

func subscribe(t testing.TB, b broker.Broker, topic string, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	t.Helper()
	s, err := b.Subscribe(t.Context(), topic, h, opts...)
	must(t, err)
	return s
}

func publish(t testing.TB, b broker.Broker, topic string, bodies ...string) broker.Report {
	t.Helper()
	var ms []*broker.Message
	for _, body := range bodies {
		ms = append(ms, &broker.Message{Topic: topic, Header: metadata.Of("content-type", "text/plain"), Body: []byte(body)})
	}
	r, err := b.Publish(t.Context(), ms...)
	must(t, err)
	return r
}

// journal is what a logger was told.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (j *journal) has(text string) bool { return strings.Contains(j.String(), text) }
