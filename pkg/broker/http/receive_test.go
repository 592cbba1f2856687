package http_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/http"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/status"
)

// What go-micro's publishers were seen to send is taken, byte for byte but for the subscription's id.
func TestReceiveFromGoMicro(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, contentType, id, body string }{
		{"v1-proto", "application/protobuf", "49d05a7a-159e-49fe-beee-b7c74a4137f7", "\n\x010\x12\x04John\x18\x80\xe2\xcf\xaa\x06"},
		{"v2mucp-json", "application/json", "6bd80e4a-2e9f-4a35-a41f-dc716a867118", `{"id":"0","message":"John","timestamp":1700000000}` + "\n"},
		{"v2mucp-proto", "application/protobuf", "447a0920-e462-4753-a4b3-e4d7d48341ce", "\n\x010\x12\x04John\x18\x80\xe2\xcf\xaa\x06"},
		{"v2grpc-json", "", "", ""},
		{"v2grpc-proto", "application/protobuf", "", "\n\x010\x12\x04John\x18\x80\xe2\xcf\xaa\x06"},
		{"v5-json", "application/json", "982d6c1f-d500-44fc-8f98-cb7fdceac723", `{"id":"0","message":"John","timestamp":1700000000}` + "\n"},
		{"v5-proto", "application/protobuf", "44702663-366a-459f-a5fd-36c240a8d363", "\n\x010\x12\x04John\x18\x80\xe2\xcf\xaa\x06"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t)
			b := newBroker(t, reg, http.Options{})
			got := make(chan *broker.Message, 1)
			subscribe(t, b, "greeter.events", func(_ context.Context, m *broker.Message) error { got <- m; return nil })
			node := onlyNode(t, reg)
			want := capture(t, test.name)
			var raw bytes.Buffer
			fmt.Fprintf(&raw, "POST %s?id=%s HTTP/1.1\r\nHost: %s\r\n", want.URL.Path, node.ID, node.Address)
			fmt.Fprintf(&raw, "User-Agent: Go-http-client/1.1\r\nContent-Length: %d\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n", len(want.body))
			raw.Write(want.body)
			code, body := exchange(t, node.Address, raw.Bytes())
			if code != 200 || body != "" {
				t.Fatalf("answer %d %q, want an empty 200", code, body)
			}
			m := await(t, "the message", got)
			if m.Topic != "greeter.events" {
				t.Errorf("topic %q", m.Topic)
			}
			if strings.Contains(string(m.Header), "topic") || m.Header.Get("micro-id") != "" {
				t.Errorf("the envelope's own keys are in the header: %q", m.Header)
			}
			if test.contentType == "" {
				return
			}
			if m.ID != test.id || m.Header.Get("content-type") != test.contentType || string(m.Body) != test.body {
				t.Errorf("id %q, content type %q, body %q", m.ID, m.Header.Get("content-type"), m.Body)
			}
		})
	}
}

// exchange sends raw bytes and reads one answer.
func exchange(t *testing.T, address string, raw []byte) (code int, body string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(raw); err != nil {
		t.Fatal(err)
	}
	resp, err := nethttp.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// envelope makes a message as JSON.
func envelope(topic string, body []byte) string {
	return fmt.Sprintf(`{"Header":{"Content-Type":"text/plain","Micro-ID":"1","Micro-Topic":%q},"Body":%q}`, topic, base64.StdEncoding.EncodeToString(body))
}

// answerTest is one POST and what it is answered.
type answerTest struct {
	name, method, url, contentType, body string
	code                                 int
	runs                                 int32  // of the handler
	text                                 string // in the answer's detail
	refused                              bool
}

func answerTests(id string) []answerTest {
	url := "/?id=" + id
	const ct = "application/json"
	return []answerTest{
		{"acknowledged", "POST", url, ct, envelope("topic", []byte("good")), 200, 1, "", false},
		{"path of v1", "POST", "/_sub?id=" + id, ct, envelope("topic", []byte("good")), 200, 1, "", false},
		{"topic of v1", "POST", url, ct, `{"Header":{":topic":"topic"},"Body":"Z29vZA=="}`, 200, 1, "", false},
		{"content type with a charset", "POST", url, "Application/JSON; charset=utf-8", envelope("topic", []byte("good")), 200, 1, "", false},
		{"unknown members", "POST", url, ct, `{"Extra":{"a":[1]},"Header":{"Micro-Topic":"topic"},"Error":null,"Body":null}`, 200, 1, "", false},
		{"largest", "POST", url, ct, envelope("topic", make([]byte, 1000)), 200, 1, "", false},
		{"plain error", "POST", url, ct, envelope("topic", []byte("plain")), 500, 1, "the handler failed", false},
		{"status error", "POST", url, ct, envelope("topic", []byte("status")), 409, 1, "sold out", false},
		{"refusing handler", "POST", url, ct, envelope("topic", []byte("refused")), 503, 1, "not now", true},
		{"code that is no error's", "POST", url, ct, envelope("topic", []byte("odd")), 500, 1, "", false},
		{"error of another service", "POST", url, ct, envelope("topic", []byte("remote")), 500, 1, "the handler failed", false},
		{"long detail", "POST", url, ct, envelope("topic", []byte("long")), 400, 1, "...", false},
		{"panic", "POST", url, ct, envelope("topic", []byte("panic")), 500, 1, "the handler failed", false},
		{"unknown id", "POST", "/?id=topic-1", ct, envelope("topic", nil), 404, 0, "no such subscription", true},
		{"no id", "POST", "/", ct, envelope("topic", nil), 404, 0, "no such subscription", true},
		{"bad query", "POST", "/?id=%zz", ct, envelope("topic", nil), 404, 0, "no such subscription", true},
		{"other topic", "POST", url, ct, envelope("other", nil), 404, 0, "another topic", true},
		{"no topic", "POST", url, ct, `{"Header":{},"Body":""}`, 400, 0, "no topic", true},
		{"GET", "GET", url, ct, "", 405, 0, "POST", false},
		{"no content type", "POST", url, "", envelope("topic", nil), 415, 0, "application/json", true},
		{"form", "POST", url, "application/x-www-form-urlencoded", envelope("topic", nil), 415, 0, "application/json", true},
		{"text of a web page", "POST", url, "text/plain", envelope("topic", nil), 415, 0, "application/json", true},
		{"empty body", "POST", url, ct, "", 400, 0, "not a message", true},
		{"null", "POST", url, ct, "null", 400, 0, "no topic", true},
		{"array", "POST", url, ct, "[]", 400, 0, "not a message", true},
		{"cut off", "POST", url, ct, `{"Header":{"Micro-Topic":"topic"},"Bo`, 400, 0, "not a message", true},
		{"not closed", "POST", url, ct, `{"Header":{"Micro-Topic":"topic"},"Body":""`, 400, 0, "not a message", true},
		{"more after it", "POST", url, ct, envelope("topic", nil) + "{}", 400, 0, "follows", true},
		{"no base64", "POST", url, ct, `{"Header":{"Micro-Topic":"topic"},"Body":"*"}`, 400, 0, "Body", true},
		{"two bodies", "POST", url, ct, `{"Header":{"Micro-Topic":"topic"},"Body":"","Body":""}`, 400, 0, "twice", true},
		{"two headers", "POST", url, ct, `{"Header":{"Micro-Topic":"topic","Micro-Topic":"other"},"Body":""}`, 400, 0, "twice", true},
		{"header no text", "POST", url, ct, `{"Header":{"Micro-Topic":"topic","A":1},"Body":""}`, 400, 0, "not a message", true},
		{"header with a line break", "POST", url, ct, `{"Header":{"Micro-Topic":"topic","A":"b\nc"},"Body":""}`, 400, 0, "line break", true},
		{"header key", "POST", url, ct, `{"Header":{"Micro-Topic":"topic","A b":"c"},"Body":""}`, 400, 0, "key", true},
		{"deep", "POST", url, ct, `{"Extra":` + strings.Repeat("[", 20_000), 400, 0, "not a message", true},
		{"one byte too many", "POST", url, ct, envelope("topic", make([]byte, 1001)), 413, 0, "limit of 1000", true},
		{"far too long", "POST", url, ct, envelope("topic", make([]byte, 1<<20)), 413, 0, "limit of 1000", true},
		{"too slow", "POST", url, ct, envelope("topic", []byte("hang")), 504, 1, "1s", false},
		{"busy", "POST", url, ct, envelope("topic", []byte("good")), 429, 0, "as many handlers", true},
	}
}

// answerHandler does what the message's body says.
func answerHandler(handled *atomic.Int32, hang <-chan struct{}) broker.Handler {
	results := map[string]error{
		"good": nil, "plain": errors.New("secret text"), "status": status.New(409, "sold out"),
		"refused": status.Refuse(503, "not now"), "odd": status.New(200, "no error code"),
		"remote": &status.Error{Code: 404, Detail: "another's", Remote: true},
		"long":   status.New(400, "%s", strings.Repeat("ü", 10_000)),
	}
	return func(_ context.Context, m *broker.Message) error {
		handled.Add(1)
		switch key := string(m.Body); key {
		case "panic":
			panic("secret value")
		case "hang":
			<-hang
			return nil
		default:
			return results[key]
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	var logged syncBuffer
	reg := newRegistry(t)
	b := newBroker(t, reg, http.Options{MaxMessage: 1000, Logger: textLogger(&logged)})
	var handled atomic.Int32
	hang := make(chan struct{})
	subscribe(t, b, "topic", answerHandler(&handled, hang), broker.Timeout(time.Second), broker.Concurrency(1))
	t.Cleanup(func() { close(hang) })
	node := onlyNode(t, reg)
	for _, test := range answerTests(node.ID) { // in order: the last two belong together
		before := handled.Load()
		code, text := post(t, "http://"+node.Address, test)
		if code != test.code {
			t.Errorf("%s: code %d, want %d: %s", test.name, code, test.code, text)
		}
		if n := handled.Load() - before; n != test.runs {
			t.Errorf("%s: the handler ran %d times, want %d", test.name, n, test.runs)
		}
		checkAnswer(t, test.name, test.code, text, test.text, test.refused)
	}
	for _, want := range []string{"secret text", "secret value", "receive_test.go", "as many handlers"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log does not tell %q", want)
		}
	}
}

func post(t *testing.T, base string, test answerTest) (code int, answer []byte) {
	t.Helper()
	req, err := nethttp.NewRequestWithContext(t.Context(), test.method, base+test.url, strings.NewReader(test.body))
	if err != nil {
		t.Fatal(err)
	}
	if test.contentType != "" {
		req.Header.Set("Content-Type", test.contentType)
	}
	req.Close = true
	resp, err := nethttp.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s: %v", test.name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", test.name, err)
	}
	return resp.StatusCode, answer
}

func checkAnswer(t *testing.T, name string, code int, answer []byte, detail string, refused bool) {
	t.Helper()
	if code == 200 {
		if len(answer) != 0 {
			t.Errorf("%s: 200 with a body: %q", name, answer)
		}
		return
	}
	if bytes.Contains(answer, []byte("secret")) || len(answer) > 10_000 {
		t.Errorf("%s: the answer tells too much: %.100q", name, answer)
	}
	var e struct {
		Detail  string
		Refused bool
	}
	if err := json.Unmarshal(answer, &e); err != nil || !strings.Contains(e.Detail, detail) || e.Refused != refused {
		t.Errorf("%s: answer %.200s (%v), want detail %q and refused %v", name, answer, err, detail, refused)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A web page that reaches loopback through a name of its own, or across sites, publishes nothing.
func TestForeignHostAndOrigin(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b := newBroker(t, reg, http.Options{})
	subscribe(t, b, "topic", func(context.Context, *broker.Message) error { t.Error("handled"); return nil })
	node := onlyNode(t, reg)
	for header, want := range map[string]int{
		"Host: rebind.example\r\n":                                      421,
		"Host: " + node.Address + "\r\nOrigin: http://evil.example\r\n": 403,
	} {
		body := envelope("topic", nil)
		raw := fmt.Sprintf("POST /?id=%s HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", node.ID, header, len(body), body)
		if code, _ := exchange(t, node.Address, []byte(raw)); code != want {
			t.Errorf("%q: code %d, want %d", header, code, want)
		}
	}
}

// A publisher that goes away in the middle of a message has published nothing, and one that does not wait for the
// answer has.
func TestPublisherBreaksOff(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b := newBroker(t, reg, http.Options{})
	got := make(chan string, 10)
	done := make(chan error, 10)
	leave := make(chan struct{})
	subscribe(t, b, "topic", func(ctx context.Context, m *broker.Message) error {
		got <- string(m.Body)
		<-leave
		done <- ctx.Err()
		return nil
	})
	node := onlyNode(t, reg)
	send := func(body string, cut int) {
		c, err := net.Dial("tcp", node.Address)
		if err != nil {
			t.Fatal(err)
		}
		e := envelope("topic", []byte(body))
		fmt.Fprintf(c, "POST /?id=%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", node.ID, node.Address, len(e), e[:len(e)-cut])
		if cut == 0 {
			await(t, "the handler runs", got)
		}
		_ = c.Close()
	}
	send("half", 5)
	send("whole", 0)
	close(leave)
	if err := await(t, "the handler returns", done); err != nil {
		t.Errorf("the handler's context ended with its publisher: %v", err)
	}
	if len(got) != 0 {
		t.Errorf("%q was handled", <-got)
	}
}

// A publisher that stops sending is answered, and its connection closed, when the time for reading is over; a handler
// that takes longer than that is not disturbed.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	const limit = 100 * time.Millisecond
	b := newBroker(t, reg, http.Options{ReadTimeout: limit})
	subscribe(t, b, "topic", func(ctx context.Context, _ *broker.Message) error {
		select {
		case <-time.After(2 * limit):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	node := onlyNode(t, reg)
	head := fmt.Sprintf("POST /?id=%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", node.ID, node.Address)
	if code, body := exchange(t, node.Address, []byte(head)); code != 400 || !strings.Contains(body, "100ms") {
		t.Errorf("answer %d %s, want 400 that names the limit", code, body)
	}
	unread := strings.Replace(head, node.ID, "unknown", 1)
	if code, body := exchange(t, node.Address, []byte(unread)); code != 404 {
		t.Errorf("answer %d %s, want 404", code, body)
	}
	for range 2 { // on one connection
		if r := publish(t, b, "topic", "x"); r.Delivered() != 1 {
			t.Errorf("%+v", r.Deliveries)
		}
	}
}

func FuzzReceive(f *testing.F) {
	for _, name := range []string{"v1-proto", "v2mucp-json", "v5-proto"} {
		raw := []byte(envelope("topic", []byte(name)))
		f.Add(raw)
	}
	for _, s := range []string{
		"", "null", "{}", `{"Header":null,"Body":null}`, `{"Header":{"Micro-Topic":"topic","micro-topic":"x"},"Body":"AAAA"}`,
		`{"Header":{":topic":"topic"},"Body":"////"}`, `{"Header":{"Micro-Topic":"topic","ü":"x"}}`, `{"a":{"b":[{}]}}`,
		`{"Header":{"Micro-Topic":"topic","x":"\ud800"},"Body":""}`,
	} {
		f.Add([]byte(s))
	}
	reg := memory.New()
	b, err := http.New(reg, http.Options{MaxMessage: 1 << 10})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = b.Close(); _ = reg.Close() })
	p := &port{Server: &httptest.Server{Listener: fixedListener{}}}
	if err := b.Attach(p); err != nil {
		f.Fatal(err)
	}
	var last atomic.Pointer[broker.Message]
	if _, err := b.Subscribe(f.Context(), "topic", func(_ context.Context, m *broker.Message) error { last.Store(m); return nil }); err != nil {
		f.Fatal(err)
	}
	nodes, err := reg.Get(f.Context(), "micro.http.broker")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		last.Store(nil)
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/?id="+nodes[0].ID, bytes.NewReader(data))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		m := last.Load()
		switch w.Code {
		case 200:
			if m == nil || m.Topic != "topic" {
				t.Fatalf("acknowledged and not handled: %+v", m)
			}
			if err := broker.CheckMessage(&broker.Message{Topic: m.Topic, Header: m.Header, Body: m.Body}, 1<<10); err != nil {
				t.Fatalf("a handler got a message that is not valid: %v", err)
			}
		case 400, 404, 413:
			if m != nil {
				t.Fatal("refused and handled")
			}
		default:
			t.Fatalf("code %d: %s", w.Code, w.Body)
		}
	})
}

// fixedListener has an address and no socket.
type fixedListener struct{ net.Listener }

func (fixedListener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}
}
