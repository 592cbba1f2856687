package commands_test

import (
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// subscribing starts subscribe and waits until it listens.
func (w *world) subscribing(t *testing.T, on terminal, args ...string) *live {
	t.Helper()
	d, _, _ := w.deps(on, map[string]string{"NO_COLOR": "1"}, append([]string{"subscribe"}, args...)...)
	l := start(t, d)
	until(t, l.stderr, "subscribed to ")
	return l
}

func (w *world) publish(t *testing.T, topic string, bodies ...string) (report broker.Report) {
	t.Helper()
	for _, b := range bodies {
		var err error
		report, err = w.broker.Publish(t.Context(), &broker.Message{Topic: topic, ID: "id-1", Header: metadata.Of("x-who", "me"), Body: []byte(b)})
		if err != nil {
			t.Fatal(err)
		}
	}
	return report
}

func TestSubscribeForms(t *testing.T) {
	t.Parallel()
	line := func(body string) string {
		return `{"topic":"topic","id":"id-1","time":"2026-11-22T14:02:11Z","headers":{"x-who":"me"},"body":` + body + "}\n"
	}
	clock := now.Local().Format(time.TimeOnly)
	for name, c := range map[string]struct {
		on     terminal
		line   string
		bodies []string
		want   string
	}{
		"pipe":         {pipe, "topic", []string{`{"a": 1.0}`, "2"}, line(`{"a":1.0}`) + line("2")},
		"text":         {pipe, "topic", []string{"not JSON", ""}, line(`"not JSON"`) + line(`""`)},
		"bytes":        {pipe, "topic", []string{"\xff"}, strings.Replace(line(`"/w=="`), "}\n", ",\"encoding\":\"base64\"}\n", 1)},
		"query":        {pipe, "topic -q .body.a", []string{`{"a":"x"}`}, "x\n"},
		"filter":       {pipe, "topic --filter .body.n>1 -q .body.n", []string{`{"n":1}`, `{"n":2}`, `{"n":3}`}, "2\n3\n"},
		"raw":          {pipe, "topic -o raw", []string{`{"a": 1}`, "x\n"}, "{\"a\": 1}\nx\n"},
		"jsonl":        {tty, "topic -o jsonl", []string{"1"}, line("1")},
		"terminal":     {tty, "topic", []string{`{"a":"\u001b"}`, "x\x1b[2J"}, clock + "  topic  {\"a\":\"\\u001b\"}\n" + clock + "  topic  x\\x1b[2J\n"},
		"headers":      {tty, "topic --headers", []string{"1"}, clock + "  topic  \n  x-who: me\n  1\n"},
		"pretty":       {pipe, "topic -o pretty", []string{"1"}, clock + "  topic  1\n"},
		"several":      {pipe, "other topic topic -q .topic", []string{"1"}, "topic\n"},
		"yaml":         {pipe, "topic -o yaml -q .body", []string{`{"a":1}`}, "a: 1\n"},
		"odd filter":   {pipe, "topic --filter .body.n.m -q .body.n", []string{`{"n":1}`, `{"n":{"m":1}}`}, "{\"m\":1}\n"},
		"bare summary": {pipe, "topic", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			l := w.subscribing(t, c.on, strings.Fields(c.line)...)
			w.publish(t, "topic", c.bodies...) // returns when they were printed
			if code := l.stop(t); code != 0 || l.stdout.String() != c.want {
				t.Errorf("exit %d, %q, want %q; %q", code, l.stdout, c.want, l.stderr)
			}
			if !strings.Contains(l.stderr.String(), " message") || strings.Contains(l.stderr.String(), "error") {
				t.Errorf("stderr %q", l.stderr)
			}
			if r := w.publish(t, "topic", "1"); len(r.Deliveries) != 0 {
				t.Errorf("it is still subscribed: %+v", r)
			}
		})
	}
}

// TestSubscribeCount holds that the end after N messages is exact: what comes beyond is not taken.
func TestSubscribeCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.subscribing(t, pipe, "topic", "-n", "2", "-o", "json", "--queue", "q")
	w.publish(t, "topic", "1", "2")
	if code := l.end(t); code != 0 || !json.Valid([]byte(l.stdout.String())) || strings.Count(l.stdout.String(), "id-1") != 2 || !strings.Contains(l.stderr.String(), "subscribed to \"topic\" in queue \"q\"\n2 messages in ") {
		t.Errorf("exit %d, %q, %q", code, l.stdout, l.stderr)
	}
}

func TestSubscribeFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for line, code := range map[string]int{"topic --for 10ms": 0, "topic --for 10ms -n 1": 5} {
		if got := w.run(t, pipe, nil, append([]string{"subscribe"}, strings.Fields(line)...)...); got.code != code || got.stdout != "" {
			t.Errorf("%s: exit %d, %q, %q", line, got.code, got.stdout, got.stderr)
		}
	}
}

// TestSubscribeReaderGone is | head -1: the command ends well, and at once, when nobody reads its output any more.
func TestSubscribeReaderGone(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("only the next write tells there")
	}
	for name, args := range map[string][]string{"subscribe": {"subscribe", "topic"}, "stream": {"stream", "greeter", "Say.Chat"},
		"list": {"list", "-w"}, "stats": {"stats", "-w", "--interval", "1h"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.talker(t, "greeter-1", nil)
			r, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			d, _, _ := w.deps(pipe, nil, args...)
			in, stdin, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			d.Stdin = in
			code := make(chan int, 1)
			d.Stdout = out
			go func() { code <- runMain(t, d) }()
			r.Close()
			select {
			case c := <-code:
				if c != 0 {
					t.Errorf("exit %d", c)
				}
			case <-time.After(10 * time.Second):
				t.Error("it does not end")
			}
		})
	}
}

// TestSubscribeFailingOutput holds that a message that could not be printed is not acknowledged.
func TestSubscribeFailingOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d, _, stderr := w.deps(pipe, nil, "subscribe", "topic")
	errs := &sharedBuffer{}
	d.Stdout, d.Stderr = failing{}, errs
	code := make(chan int, 1)
	go func() { code <- runMain(t, d) }()
	until(t, errs, "subscribed to ")
	if r := w.publish(t, "topic", "1"); r.Delivered() != 0 || len(r.Deliveries) != 1 {
		t.Errorf("%+v", r)
	}
	if c := <-code; c != 1 || !strings.Contains(errs.String(), "error: disk full") {
		t.Errorf("exit %d, %q, %q", c, errs, stderr)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }

type fullError struct{}

func (fullError) Error() string { return "disk full" }

var errFull = fullError{}
