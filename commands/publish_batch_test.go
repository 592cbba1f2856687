package commands_test

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/registry"
)

// counting is a broker that keeps how much each Publish was given.
type counting struct {
	broker.Broker

	mu    sync.Mutex
	ms    []int // messages
	bytes []int
}

func (c *counting) Publish(ctx context.Context, ms ...*broker.Message) (broker.Report, error) {
	size := 0
	for _, m := range ms {
		size += len(m.Body)
	}
	c.mu.Lock()
	c.ms, c.bytes = append(c.ms, len(ms)), append(c.bytes, size)
	c.mu.Unlock()
	return c.Broker.Publish(ctx, ms...)
}

// TestPublishInBatches: what comes fast travels together, within the bounds and in its order.
func TestPublishInBatches(t *testing.T) {
	t.Parallel()
	large := `"` + strings.Repeat("x", 100<<10) + `"`
	for name, c := range map[string]struct {
		line, stdin    string
		messages, most int
		largest        int
	}{
		"small":   {"publish topic -l", strings.Repeat("1\n", 3000), 3000, 1000, 256},
		"counted": {"publish topic 1 -n 3000", "", 3000, 1000, 256},
		"large":   {"publish topic -l", strings.Repeat(large+"\n", 8), 8, 8, 2},
		"paced":   {"publish topic 1 -n 20 --rate 1000000/s", "", 20, 20, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			got := 0
			w.listen(t, "topic", func(context.Context, *broker.Message) error { got++; return nil }, broker.Concurrency(1))
			published := &counting{Broker: w.broker}
			d, stdout, stderr := w.deps(pipe, nil, strings.Fields(c.line)...)
			d.Stdin, d.StdinData = strings.NewReader(c.stdin), true
			d.Backends.Brokers = func(func(context.Context) (registry.Registry, error)) broker.Openers {
				return broker.Openers{"http": func(context.Context, *url.URL) (broker.Broker, error) { return keepOpen{published}, nil }}
			}
			if code := runMain(t, d); code != 0 || got != c.messages || !strings.Contains(stdout.String(), fmt.Sprintf(": %d messages, ", c.messages)) {
				t.Errorf("exit %d, %d received, %q %q", code, got, stdout, stderr)
			}
			if n := len(published.ms); n > c.most {
				t.Errorf("published %d times, want %d at most", n, c.most)
			}
			for i, n := range published.ms {
				if n > c.largest || n > 1 && published.bytes[i] > 256<<10 {
					t.Errorf("%d messages of %d bytes at once", n, published.bytes[i])
				}
			}
		})
	}
}

// TestPublishOrder: lines are handled in their order by a subscription that handles one at a time.
func TestPublishOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var box inbox
	w.listen(t, "topic", func(_ context.Context, m *broker.Message) error { box.add(m); return nil }, broker.Concurrency(1))
	var lines, want []string
	for i := range 1000 {
		lines = append(lines, fmt.Sprintf("%d\n", i))
		want = append(want, fmt.Sprint(i))
	}
	if got := w.feed(t, strings.NewReader(strings.Join(lines, "")), pipe, "publish", "topic", "-l"); got.code != 0 || box.String() != strings.Join(want, "|") {
		t.Errorf("exit %d, %q", got.code, got.stderr)
	}
}

// TestPublishDoesNotHold: a line is sent though no other follows it.
func TestPublishDoesNotHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := make(chan string, 1)
	w.listen(t, "topic", func(_ context.Context, m *broker.Message) error { got <- string(m.Body); return nil })
	d, _, _ := w.deps(pipe, nil, "publish", "topic", "-l")
	r, stdin := io.Pipe()
	d.Stdin, d.StdinData = r, true
	l := start(t, d)
	for _, line := range []string{"1", "2", "3", "4"} {
		if _, err := io.WriteString(stdin, line+"\n"); err != nil {
			t.Fatal(err)
		}
		select {
		case body := <-got:
			if body != line {
				t.Errorf("got %s, want %s", body, line)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("line %s is held back", line)
		}
	}
	_ = stdin.Close()
	if code := l.end(t); code != 0 || !strings.Contains(l.stdout.String(), "4 messages, 4 B") {
		t.Errorf("exit %d, %q, %q", code, l.stdout, l.stderr)
	}
}

// TestPublishBatchFailures: a message that a subscriber did not take is named by its number, and the others count as taken; what
// comes before a line that is not valid is sent.
func TestPublishBatchFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.listen(t, "topic", func(_ context.Context, m *broker.Message) error {
		if s := string(m.Body); s == "6" || s == "7" {
			return broker.ErrBusy
		}
		return nil
	}, broker.Concurrency(1))
	got := w.feed(t, strings.NewReader("1\n2\n3\n4\n5\n6\n7\n8\n"), pipe, "publish", "topic", "-l", "-o", "json")
	if got.code != 9 || !strings.Contains(got.stdout, `"deliveries": 6`) || !strings.Contains(got.stdout, `"failed": 2`) ||
		!strings.Contains(got.stderr, "did not take messages 6 to 7: it is busy\n") {
		t.Errorf("exit %d, %s, %q", got.code, got.stdout, got.stderr)
	}
	got = w.feed(t, strings.NewReader("1\n2\n3\n4\n5\nx\n8\n"), pipe, "publish", "topic", "-l")
	if got.code != 2 || !strings.Contains(got.stderr, "line 6 is not JSON") || !strings.Contains(got.stderr, "published before it: 5 messages\n") {
		t.Errorf("exit %d, %q", got.code, got.stderr)
	}
}

// TestBatchAdapts: subscribers that take their time get few messages at once.
func TestBatchAdapts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		most, n int
		took    time.Duration
		want    int
	}{
		{1, 1, time.Millisecond, 2},
		{128, 128, time.Millisecond, 256},
		{256, 256, time.Millisecond, 256},
		{16, 3, time.Millisecond, 16},
		{16, 16, time.Second, 8},
		{16, 4, time.Second, 2},
		{1, 1, time.Second, 1},
	} {
		if got := commands.AdaptBatch(c.most, c.n, c.took); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}
