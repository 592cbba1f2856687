package http_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	services "github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// TestAnswerBeforeTheEnd: an answer that comes before the handler has returned is whole for the caller, is the only one, and the
// last of its connection, unless that is a go-micro client's: its calls do not wait for each other.
func TestAnswerBeforeTheEnd(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := serve(t, http.Options{}, func(ctx context.Context, _ string, req, rsp *transport.Message) {
		early, ok := ctx.(transport.Answerable)
		if !ok {
			t.Errorf("%q cannot be answered", req.Body)
			return
		}
		var answer transport.Message
		echoPlain(ctx, "", req, &answer)
		early.Answer(&answer)
		<-release
		rsp.Body = append(rsp.Body, "late"...)
	})
	defer close(release)
	for body, want := range map[string]string{"{}": "200 {}", "": "200 ", "fail": "409 " + `{"id":"echo","code":409,"detail":"as\nyou wish","status":"Conflict"}` + "\n"} {
		for _, headers := range []string{"", "Micro-Id: 3\r\n"} {
			nc := raw(t, s)
			fmt.Fprintf(nc, "POST /Say.Hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", headers, len(body), body)
			buffered := bufio.NewReader(nc)
			rsp, err := nethttp.ReadResponse(buffered, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(rsp.Body)
			rsp.Body.Close()
			want := want
			if headers != "" && body == "fail" {
				want = "200 "
			}
			if text := fmt.Sprintf("%d %s", rsp.StatusCode, got); err != nil || text != want || rsp.Close != (headers == "") || rsp.ContentLength != int64(len(got)) {
				t.Errorf("%q %q: answered %q, close %t, %v, want %q", body, headers, text, rsp.Close, err, want)
			}
			release <- struct{}{}
			if headers != "" {
				_ = nc.(*net.TCPConn).CloseWrite()
			}
			if rest, err := io.ReadAll(buffered); err != nil || len(rest) > 0 {
				t.Errorf("%q %q: after the answer came %q, %v", body, headers, rest, err)
			}
			nc.Close()
		}
	}
}

// slowService serves handlers that take their time, until the test ends.
func slowService(t *testing.T, register func(s *services.Server)) (address string) {
	t.Helper()
	s, err := services.New("slow")
	if err != nil {
		t.Fatal(err)
	}
	register(s)
	l, err := newTransport(t, http.Options{}).Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return address
}

// TestLatePlainHandlers: the caller of a handler that does not look at its context is answered in time all the same, over
// HTTP/1.1 and HTTP/2, after the endpoint was quick for long; and what the handler answers later is nobody's.
func TestLatePlainHandlers(t *testing.T) {
	t.Parallel()
	for _, h2c := range []bool{false, true} {
		release, ended := make(chan struct{}), make(chan error, 1)
		address := slowService(t, func(s *services.Server) {
			_ = s.Handle(services.Endpoint{Name: "Say.Hello"}, func(ctx context.Context, c *services.Call) error {
				body, err := c.RecvRaw()
				if string(body) == "hang" {
					<-release
					ended <- ctx.Err()
				}
				_ = c.SendRaw("", body)
				return err
			})
		})
		c := client(t, h2c)
		for range 100 {
			if rsp, body := post(t, c, "http://"+address+"/Say.Hello", "quick", "Content-Type", jsonType); body != "quick" {
				t.Fatalf("h2c %t: %s %s", h2c, rsp.Status, body)
			}
		}
		rsp, body := post(t, c, "http://"+address+"/Say.Hello", "hang", "Content-Type", jsonType, "Micro-Timeout", "50ms")
		if rsp.StatusCode != 408 || !strings.Contains(body, "within the caller's 50ms") {
			t.Errorf("h2c %t: %s %s", h2c, rsp.Status, body)
		}
		if rsp, body := post(t, c, "http://"+address+"/Say.Hello", "next", "Content-Type", jsonType); body != "next" {
			t.Errorf("h2c %t: a call after it: %s %s", h2c, rsp.Status, body)
		}
		close(release)
		if err := <-ended; status.CodeOf(err) != status.DeadlineExceeded {
			t.Errorf("h2c %t: the handler's context: %v", h2c, err)
		}
	}
}

// TestPlainHandlersOfAConnection: a handler that panics leaves the connection as it was.
func TestPlainHandlersOfAConnection(t *testing.T) {
	t.Parallel()
	address := slowService(t, func(s *services.Server) {
		_ = s.Handle(services.Endpoint{Name: "Say.Panic"}, func(context.Context, *services.Call) error { panic("as asked") })
		_ = s.Handle(services.Endpoint{Name: "Say.Hello"}, func(_ context.Context, c *services.Call) error { return c.SendRaw("", []byte(c.Remote())) })
	})
	c := client(t, false)
	_, first := post(t, c, "http://"+address+"/Say.Hello", "", "Content-Type", jsonType)
	for _, tt := range []struct {
		endpoint string
		code     int
	}{{"Say.Panic", 500}, {"Say.Nope", 404}, {"Say.Panic", 500}} {
		rsp, body := post(t, c, "http://"+address+"/"+tt.endpoint, "{}", "Content-Type", jsonType)
		if e := status.Parse(body); rsp.StatusCode != tt.code || e == nil || int(e.Code) != tt.code {
			t.Errorf("%s: %s %s", tt.endpoint, rsp.Status, body)
		}
	}
	if _, last := post(t, c, "http://"+address+"/Say.Hello", "", "Content-Type", jsonType); last != first {
		t.Errorf("the connection from %s was closed: the last call came from %s", first, last)
	}
}

// TestCallerLeavesHandler: a service's handler learns that its caller has gone.
func TestCallerLeavesHandler(t *testing.T) {
	t.Parallel()
	started, ended := make(chan struct{}), make(chan error, 1)
	address := slowService(t, func(s *services.Server) {
		_ = s.Handle(services.Endpoint{Name: "Say.Obey"}, func(ctx context.Context, _ *services.Call) error {
			close(started)
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		})
	})
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-started; leave() }()
	r, err := nethttp.NewRequestWithContext(ctx, "POST", "http://"+address+"/Say.Obey", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", jsonType)
	if rsp, err := client(t, false).Do(r); err == nil {
		rsp.Body.Close()
		t.Errorf("answered %s", rsp.Status)
	}
	select {
	case err := <-ended:
		if status.CodeOf(err) != status.Canceled {
			t.Errorf("the context ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the handler's context lives on")
	}
}

// TestStopEndsPlainHandlers: a service that has waited long enough ends the contexts of its handlers.
func TestStopEndsPlainHandlers(t *testing.T) {
	t.Parallel()
	s, err := services.New("slow", services.ShutdownTimeout(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	_ = s.Handle(services.Endpoint{Name: "Say.Obey"}, func(ctx context.Context, _ *services.Call) error {
		close(started)
		<-ctx.Done()
		return ctx.Err()
	})
	l, err := newTransport(t, http.Options{}).Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	address := l.Addr()
	go func() { served <- s.Serve(ctx, l) }()
	var nc net.Conn
	if nc, err = net.Dial("tcp", address); err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	write(t, nc, []byte("POST /Say.Obey HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
	<-started
	stop()
	if err := <-served; err == nil || !strings.Contains(err.Error(), "1 calls were cut off") {
		t.Errorf("Serve: %v", err)
	}
}
