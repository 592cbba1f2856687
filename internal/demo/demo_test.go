package demo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/demo"
	brokermemory "github.com/cb02dfca/micro/pkg/broker/memory"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/status"
	transportmemory "github.com/cb02dfca/micro/pkg/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a service with what add gives it, and gives a client of it.
func serve(t *testing.T, name string, add func(*micro.Service) error) *client.Client {
	t.Helper()
	ready := make(chan struct{})
	s, err := micro.New(name, micro.Registry(registrymemory.New()), micro.Transport(transportmemory.New()), micro.Broker(brokermemory.New()),
		micro.Address(":0"), micro.Signals(false), micro.Grace(0),
		micro.AfterStart(func(context.Context) error { close(ready); return nil }))
	if err != nil {
		t.Fatal(err)
	}
	if err := add(s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("it ended: %v", err)
	}
	return s.Client()
}

func greeter(t *testing.T, log io.Writer) *client.Client {
	t.Helper()
	return serve(t, "greeter", func(s *micro.Service) error { return demo.Greeter(s, slog.New(slog.NewTextHandler(log, nil))) })
}

func TestGreeterCalls(t *testing.T) {
	t.Parallel()
	c := greeter(t, io.Discard)
	for name, test := range map[string]struct {
		endpoint, body, want string
		code                 status.Code
	}{
		"hello":                {"Say.Hello", `{"name":"x"}`, `{"msg":"Hello x"}`, 0},
		"hello twice":          {"Say.Hello", `{"name":"x","times":2}`, `{"msg":"Hello x, Hello x"}`, 0},
		"hello nobody":         {"Say.Hello", `{}`, "", 400},
		"hello without end":    {"Say.Hello", `{"name":"x","times":2000000000}`, "", 400},
		"echo":                 {"Say.Echo", `[1, {"a": null}]`, `[1, {"a": null}]`, 0},
		"echo nothing":         {"Say.Echo", ``, `{}`, 0},
		"echo what is no JSON": {"Say.Echo", `{`, "", 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: test.endpoint, ContentType: "application/json", Body: []byte(test.body)})
			if status.CodeOf(err) != test.code {
				t.Fatalf("got %v, want code %d", err, test.code)
			}
			if err == nil && string(rsp.Body) != test.want {
				t.Errorf("got %s, want %s", rsp.Body, test.want)
			}
		})
	}
}

func TestGreeterStreams(t *testing.T) {
	t.Parallel()
	c := greeter(t, io.Discard)
	for name, test := range map[string]struct {
		endpoint string
		send     []string
		want     []string
		code     status.Code
	}{
		"count":              {"Say.Count", []string{`{"to":2}`}, []string{`{"n":1}`, `{"n":2}`}, 0},
		"count by default":   {"Say.Count", []string{`{"pause":1}`}, []string{`{"n":1}`, `{"n":2}`, `{"n":3}`}, 0},
		"count for ever":     {"Say.Count", []string{`{"to":9000000000}`}, nil, 400},
		"count for a year":   {"Say.Count", []string{`{"to":2,"pause":9000000000}`}, nil, 400},
		"chat":               {"Say.Chat", []string{`{"text":"a"}`, `{"text":"b"}`}, []string{`{"text":"a"}`, `{"text":"b"}`}, 0},
		"chat about nothing": {"Say.Chat", nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := converse(t, c, "greeter", test.endpoint, test.send)
			if status.CodeOf(err) != test.code || strings.Join(got, " ") != strings.Join(test.want, " ") {
				t.Errorf("got %q, %v, want %q, code %d", got, err, test.want, test.code)
			}
		})
	}
}

// converse sends all and then receives to the end.
func converse(t *testing.T, c *client.Client, service, endpoint string, send []string) (got []string, err error) {
	t.Helper()
	s, err := c.Stream(t.Context(), service, endpoint)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for _, m := range send {
		if err := s.Send(json.RawMessage(m)); err != nil {
			return nil, err
		}
	}
	if err := s.CloseSend(); err != nil {
		return nil, err
	}
	for {
		m, err := s.RecvRaw()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, string(m))
	}
}

func TestGreeterSubscribes(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := greeter(t, &log)
	report, err := c.Publish(t.Context(), demo.Topic, map[string]string{"a": "\x1b[2J\u202e"})
	if err != nil || report.Delivered() != 1 {
		t.Fatalf("got %v, %v", report, err)
	}
	text := log.String()
	if !strings.Contains(text, "topic="+demo.Topic) || !strings.Contains(text, "bytes=") || strings.ContainsAny(text, "\x1b\u202e") {
		t.Errorf("logged %q", text)
	}
}

func TestEcho(t *testing.T) {
	t.Parallel()
	c := serve(t, "echo", demo.Echo)
	rsp, err := c.Do(t.Context(), &client.Request{Service: "echo", Endpoint: "Echo.Call", ContentType: "application/octet-stream", Body: []byte{0, 1, 255}})
	if err != nil || !bytes.Equal(rsp.Body, []byte{0, 1, 255}) || rsp.ContentType != "application/octet-stream" {
		t.Errorf("got %v, %v", rsp, err)
	}
	if got, err := converse(t, c, "echo", "Echo.Stream", []string{`1`, `{"a":2}`}); err != nil || strings.Join(got, " ") != `1 {"a":2}` {
		t.Errorf("got %q, %v", got, err)
	}
}
