package commands_test

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

// inbox keeps what subscribers got.
type inbox struct {
	mu  sync.Mutex
	got []string
}

func (b *inbox) add(m *broker.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, string(m.Body))
}

func (b *inbox) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.got, "|")
}

// subscribers subscribes n times to a topic.
func (w *world) subscribers(t *testing.T, topic string, n int) *inbox {
	t.Helper()
	var box inbox
	for range n {
		w.listen(t, topic, func(_ context.Context, m *broker.Message) error { box.add(m); return nil })
	}
	w.subscriber(t, topic, "", topic+"-listed")
	return &box
}

func (w *world) listen(t *testing.T, topic string, h broker.Handler, opts ...broker.SubscribeOption) {
	t.Helper()
	s, err := w.broker.Subscribe(t.Context(), topic, h, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
}

func TestPublishBodies(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "{\"n\":1}\n\n[2]\n3")
	for name, c := range map[string]struct {
		line, stdin string
		want, told  string
	}{
		"nothing":       {"publish topic", "", "{}", `published to "topic": 1 message, 2 B ({})  -> 1 subscriber`},
		"alias":         {"pub topic", "", "{}", `published to "topic": 1 message, 2 B ({})  -> 1 subscriber`},
		"argument":      {`publish topic {"a":1}`, "-", `{"a":1}`, `published to "topic": 1 message, 7 B ({"a":1})  -> 1 subscriber`},
		"items":         {"publish topic a=x b:=1", "-", `{"a":"x","b":1}`, `published to "topic": 1 message, 15 B ({"a":"x","b":1})  -> 1 subscriber`},
		"stdin":         {"publish topic", "{\"a\":1}\n", `{"a":1}`, `published to "topic": 1 message, 7 B ({"a":1})  -> 1 subscriber`},
		"text":          {"publish topic -d hi -H content-type:text/plain", "-", "hi", `published to "topic": 1 message, 2 B (hi)  -> 1 subscriber`},
		"lines":         {"publish topic -l", "1\n\r\n{\"a\":2}\r\n3", `1|{"a":2}|3`, `published to "topic": 3 messages, 9 B  -> 1 subscriber`},
		"no lines":      {"publish topic -l", "", "", `published to "topic": 0 messages, 0 B  -> 0 subscribers`},
		"lines of file": {"publish topic -l -d @" + file, "-", `{"n":1}|[2]|3`, `published to "topic": 3 messages, 11 B  -> 1 subscriber`},
		"count":         {"publish topic a:=1 -n 3 --rate 1000/s", "-", `{"a":1}|{"a":1}|{"a":1}`, `published to "topic": 3 messages, 21 B  -> 1 subscriber`},
		"count of each": {"publish topic -l -n 2", "1\n2", "1|1|2|2", `published to "topic": 4 messages, 4 B  -> 1 subscriber`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			box := w.subscribers(t, "topic", 1)
			var stdin io.Reader = strings.NewReader(c.stdin)
			if c.stdin == "-" {
				stdin = untouched{t}
			}
			got := w.feed(t, stdin, pipe, strings.Fields(c.line)...)
			if got.code != 0 || box.String() != c.want || got.stdout != c.told+"\n" || got.stderr != "" {
				t.Errorf("exit %d, got %q, told %q %q", got.code, box, got.stdout, got.stderr)
			}
		})
	}
}

func TestPublishFailures(t *testing.T) {
	t.Parallel()
	good := func(context.Context, *broker.Message) error { return nil }
	bad := func(context.Context, *broker.Message) error { return status.New(status.Internal, "no\x1b[2J") }
	remote := func(code status.Code) broker.Handler {
		return func(context.Context, *broker.Message) error {
			return &status.Error{ID: "t-1", Code: code, Detail: "no", Remote: true}
		}
	}
	for name, c := range map[string]struct {
		handlers []broker.Handler
		line     string
		code     int
		told     string
		warned   string
	}{
		"some":      {[]broker.Handler{good, bad}, "publish t", 9, `published to "t": 1 message, 2 B ({})  -> 1 subscriber, 1 failed`, "warning: subscriber t-2 did not take message 1: "},
		"all":       {[]broker.Handler{bad}, "publish t", 6, `published to "t": 1 message, 2 B ({})  -> 0 subscribers, 1 failed`, "warning: subscriber t-1 did not take message 1: "},
		"many":      {[]broker.Handler{bad}, "publish t -n 7", 6, `published to "t": 7 messages, 14 B  -> 0 subscribers, 7 failed`, "warning: and 2 failures more\n"},
		"away":      {[]broker.Handler{func(context.Context, *broker.Message) error { return broker.ErrUnavailable }}, "publish t", 4, `published to "t": 1 message, 2 B ({})  -> 0 subscribers, 1 failed`, "warning: "},
		"too slow":  {[]broker.Handler{func(ctx context.Context, _ *broker.Message) error { <-ctx.Done(); return ctx.Err() }}, "publish t --timeout 50ms", 5, `published to "t": 1 message, 2 B ({})  -> 0 subscribers, 1 failed`, "did not answer in time"},
		"line":      {[]broker.Handler{good}, "publish t -l", 2, ``, "error: line 2 is not JSON: invalid character 'x' looking for beginning of value; it was not sent\n  published before it: 1 message\n"},
		"gone":      {[]broker.Handler{remote(503)}, "publish t", 4, `published to "t": 1 message, 2 B ({})  -> 0 subscribers, 1 failed`, "warning: "},
		"slow":      {[]broker.Handler{remote(504)}, "publish t", 5, `published to "t": 1 message, 2 B ({})  -> 0 subscribers, 1 failed`, "warning: "},
		"denied":    {[]broker.Handler{remote(403)}, "publish t", 7, `published to "t": 1 message, 2 B ({})  -> 0 subscribers, 1 failed`, "warning: "},
		"listeners": {[]broker.Handler{good, good}, "publish t --require-subscriber", 0, `published to "t": 1 message, 1 B (1)  -> 2 subscribers`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for _, h := range c.handlers {
				w.listen(t, "t", h)
			}
			args := strings.Fields(c.line)
			got := w.run(t, pipe, nil, args...)
			if name == "line" || name == "listeners" {
				stdin := map[string]string{"line": "1\nx", "listeners": "1"}[name]
				got = w.feed(t, strings.NewReader(stdin), pipe, args...)
			}
			if told := strings.TrimSuffix(got.stdout, "\n"); got.code != c.code || told != c.told || !strings.Contains(got.stderr, c.warned) || strings.Contains(got.stderr, "\x1b") {
				t.Errorf("exit %d, want %d\n%s\nwant\n%s\n%s", got.code, c.code, told, c.told, got.stderr)
			}
		})
	}
}

// TestPublishSilentPipe holds that whoever waits for a pipe that says nothing is told so, once.
func TestPublishSilentPipe(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"publish", "topic"}, {"publish", "topic", "-l"}, {"call", "greeter", "Say.Echo"}} {
		w := talkWorlds["ok"](t)
		d, _, _ := w.deps(pipe, nil, args...)
		r, stdin := io.Pipe()
		d.Stdin, d.StdinData = r, true
		l := start(t, d)
		until(t, l.stderr, "from stdin (use -d '{}' for an empty one)\n")
		if _, err := io.WriteString(stdin, "{}\n"); err != nil {
			t.Fatal(err)
		}
		stdin.Close()
		if code := l.end(t); code != 0 || strings.Count(l.stderr.String(), "\n") != 1 {
			t.Errorf("micro %s: exit %d, %q", args, code, l.stderr)
		}
	}
}

// TestPublishInterrupted holds that Ctrl-C ends a long publication with what was done.
func TestPublishInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	box := w.subscribers(t, "topic", 1)
	d, _, _ := w.deps(pipe, nil, "publish", "topic", "-n", "1000", "--rate", "1/h")
	l := start(t, d)
	deadline := time.Now().Add(10 * time.Second)
	for box.String() == "" && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if code := l.stop(t); code != 130 || l.stdout.String() != "published to \"topic\": 1 message, 2 B ({})  -> 1 subscriber\n" {
		t.Errorf("exit %d, %q, %q", code, l.stdout, l.stderr)
	}
}

func TestPublishHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mu sync.Mutex
	seen := ""
	w.listen(t, "topic", func(_ context.Context, m *broker.Message) error {
		mu.Lock()
		defer mu.Unlock()
		seen = m.Header.Get("content-type") + " " + m.Header.Get("x-who")
		return nil
	})
	got := w.run(t, pipe, map[string]string{"WHO": "a,b:c"}, "publish", "topic", "-H", "X-Who: ${WHO}")
	mu.Lock()
	defer mu.Unlock()
	if got.code != 0 || seen != "application/json a,b:c" {
		t.Errorf("exit %d, %q, %q", got.code, seen, got.stderr)
	}
}

func TestReadRate(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{"": 0, "10": 100 * time.Millisecond, "10/s": 100 * time.Millisecond, "60/m": time.Second, "2/h": 30 * time.Minute, "0.5": 2 * time.Second,
		"0": -1, "-1": -1, "x": -1, "1/d": -1, "NaN": -1, "Inf": -1, "/s": -1} {
		got, err := commands.ReadRate(in)
		if want >= 0 && (err != nil || got != want) || want < 0 && err == nil {
			t.Errorf("%s: %v, %v, want %v", strconv.Quote(in), got, err, want)
		}
	}
}

func TestPublishAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.broker.Close(); err != nil && !errors.Is(err, broker.ErrClosed) {
		t.Fatal(err)
	}
	got := w.run(t, pipe, nil, "publish", "topic")
	if got.code == 0 || got.stdout != "" || !strings.HasPrefix(got.stderr, "error: ") {
		t.Errorf("exit %d, %q, %q", got.code, got.stdout, got.stderr)
	}
}

// TestPublishTypo holds that a topic that was perhaps meant is named.
func TestPublishTypo(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	for line, want := range map[string]string{
		"publish topc":                      "nobody listens to \"topc\"; did you mean \"topic\"?\n",
		"publish topc --require-subscriber": "error: nobody listens to \"topc\"\n  did you mean: topic            all: micro list topics\n",
	} {
		d, _, stderr := w.deps(pipe, nil, strings.Fields(line)...)
		d.Backends.Brokers = func(reg func(context.Context) (registry.Registry, error)) broker.Openers {
			return broker.Openers{"http": func(ctx context.Context, _ *url.URL) (broker.Broker, error) {
				_, err := reg(ctx) // as the HTTP broker does
				return keepOpen{w.broker}, err
			}}
		}
		runMain(t, d)
		if stderr.String() != want {
			t.Errorf("micro %s: %q", line, stderr)
		}
	}
}
