package brokertest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// What follows is for a backend's own tests.

// Until waits for ok.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// Inbox collects messages. The zero Inbox is ready, and may be used concurrently.
type Inbox struct {
	mu  sync.Mutex
	got []*broker.Message
}

// Handle is a broker.Handler.
func (in *Inbox) Handle(_ context.Context, m *broker.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got = append(in.got, m)
	return nil
}

// All gives the messages so far.
func (in *Inbox) All() []*broker.Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

// Wait gives the bodies when there are n.
func (in *Inbox) Wait(t testing.TB, n int) (bodies []string) {
	t.Helper()
	Until(t, fmt.Sprint(n, " messages"), func() bool { return len(in.All()) >= n })
	for _, m := range in.All() {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

// Subscribe subscribes, and fails the test where that fails.
func Subscribe(t testing.TB, b broker.Broker, topic string, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	t.Helper()
	s, err := b.Subscribe(t.Context(), topic, h, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Publish publishes messages of text as one, and fails the test where that fails.
func Publish(t testing.TB, b broker.Broker, topic string, bodies ...string) broker.Report {
	t.Helper()
	var ms []*broker.Message
	for _, body := range bodies {
		ms = append(ms, &broker.Message{Topic: topic, Header: metadata.Of("content-type", "text/plain"), Body: []byte(body)})
	}
	r, err := b.Publish(t.Context(), ms...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Journal keeps what a logger is told. The zero Journal is ready, and may be used concurrently.
type Journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (j *Journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// String gives all that was written.
func (j *Journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// Has reports whether something was written.
func (j *Journal) Has(text string) bool { return strings.Contains(j.String(), text) }

// Logger writes into j, whatever the level.
func (j *Journal) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
