package grpc_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// capture gives what went each way on the first connection of a capture of go-micro v2.9.1, client and server.
func capture(t *testing.T, name string) (fromClient, fromServer []byte) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "v2grpc-"+name+".stream.txt"))
	must(t, err)
	defer f.Close()
	streams := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "=====") {
			streams++
		}
		side, rest, ok := strings.Cut(line, "> ")
		if streams != 1 || !ok || len(rest) < 6 || side != "C" && side != "S" {
			continue
		}
		hexed := strings.ReplaceAll(rest[6:min(len(rest), 6+3*16)], " ", "")
		raw, err := hex.DecodeString(hexed)
		must(t, err)
		if side == "C" {
			fromClient = append(fromClient, raw...)
		} else {
			fromServer = append(fromServer, raw...)
		}
	}
	return fromClient, fromServer
}

// answer is what came on the first stream of a connection.
type answer struct {
	headers map[string]string
	body    []byte
}

// messages are the messages of an answer, one after the other.
func (a answer) messages() (all []string) {
	for rest := a.body; len(rest) >= 5; {
		n := int(rest[1])<<24 | int(rest[2])<<16 | int(rest[3])<<8 | int(rest[4])
		all = append(all, string(rest[5:5+n]))
		rest = rest[5+n:]
	}
	return all
}

// replay sends what go-micro's client sent, and reads the answer to its first call, until that ends or has so many messages.
func replay(t *testing.T, addr string, sent []byte, count int) answer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	const begin = len(http2.ClientPreface) + 9 // and its SETTINGS
	_, err = conn.Write(sent[:begin])
	must(t, err)
	a := answer{headers: map[string]string{}}
	fr := http2.NewFramer(conn, conn)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := fr.ReadFrame()
		must(t, err)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() { // the rest acknowledges them
				_, err = conn.Write(sent[begin:])
				must(t, err)
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == 1 {
				for _, h := range f.Fields {
					a.headers[h.Name] = h.Value
				}
			}
			if f.StreamID == 1 && f.StreamEnded() {
				return a
			}
		case *http2.DataFrame:
			if f.StreamID == 1 {
				a.body = append(a.body, f.Data()...)
			}
			if len(a.messages()) == count {
				return a
			}
		}
	}
}

// TestCapturedRequests: what go-micro v2's client sent reaches the handler as it was meant, and is answered as that client reads it.
func TestCapturedRequests(t *testing.T) {
	t.Parallel()
	type seen struct{ endpoint, contentType, body, meta string }
	for name, want := range map[string]struct {
		seen
		status   string
		messages string // all, joined
	}{
		"call-json":    {seen{"Say.Hello", "application/json", `{"name":"John"`, ""}, "0", "reply"},
		"call-proto":   {seen{"Say.Hello", "application/protobuf", "\x0a\x04John", ""}, "0", "reply"},
		"md":           {seen{"Say.Hello", "application/json", `{"name":"John"`, "bar"}, "0", "reply"},
		"err-micro":    {seen{"Say.Fail", "application/json", `{"name":"xx"`, ""}, "3", ""},
		"err-plain":    {seen{"Say.Fail", "application/json", `{"name":"plain"`, ""}, "3", ""},
		"err-nomethod": {seen{}, "12", ""},
		"timeout":      {seen{"Say.Fail", "application/json", `{"name":"slow"`, ""}, "3", ""},
		"sstream-json": {seen{"Say.ServerStream", "application/json", "", ""}, "", ""},
		"stream-json":  {seen{"Say.Stream", "application/json", "", ""}, "", "echo"},
		"stream-proto": {seen{"Say.Stream", "application/protobuf", "", ""}, "", "echo"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan seen, 16)
			note := func(ctx context.Context, c *server.Call, body []byte) {
				got <- seen{c.Endpoint(), c.ContentType(), string(body), c.Header().Get("foo")}
			}
			addr, stop := serveRaw(t, map[string]server.Handler{
				"Say.Hello": func(ctx context.Context, c *server.Call) error {
					body, err := c.RecvRaw()
					note(ctx, c, body)
					return errors.Join(err, c.SendRaw("", []byte("reply")))
				},
				"Say.Fail": func(ctx context.Context, c *server.Call) error {
					body, _ := c.RecvRaw()
					note(ctx, c, body)
					return status.New(status.InvalidArgument, "bad name")
				},
			}, map[string]server.Handler{
				"Say.Stream": func(ctx context.Context, c *server.Call) error {
					body, err := c.RecvRaw()
					note(ctx, c, body)
					return errors.Join(err, c.SendRaw("", []byte("echo")))
				},
				"Say.ServerStream": func(ctx context.Context, c *server.Call) error {
					note(ctx, c, nil)
					return nil
				},
			})
			defer stop()
			sent, _ := capture(t, name)
			a := replay(t, addr, sent, -1)
			if want.endpoint != "" {
				s := <-got
				if s.endpoint != want.endpoint || s.contentType != want.contentType || !strings.HasPrefix(s.body, want.body) || s.meta != want.meta {
					t.Errorf("the handler got %+v", s)
				}
			}
			if want.status != "" && a.headers["grpc-status"] != want.status || strings.Join(a.messages(), "") != want.messages || a.headers[":status"] != "200" {
				t.Errorf("the answer: %q %q", a.headers, a.messages())
			}
			if want.status == "3" && (a.headers["grpc-message"] == "" || !strings.HasPrefix(a.headers["grpc-message"], `{"id":"greeter","code":400,`) || a.headers["grpc-status-details-bin"] == "") {
				t.Errorf("the error: %q", a.headers)
			}
		})
	}
}

// serveRaw serves handlers of calls and of streams as greeter.
func serveRaw(t *testing.T, calls, streams map[string]server.Handler) (addr string, stop func()) {
	t.Helper()
	s, err := server.New("greeter", server.ShutdownTimeout(100*time.Millisecond))
	must(t, err)
	for name, h := range calls {
		must(t, s.Handle(server.Endpoint{Name: name}, h))
	}
	for name, h := range streams {
		must(t, s.Handle(server.Endpoint{Name: name, Kind: server.Bidi}, h))
	}
	l, err := beside(t, transporthttp.Options{}).Listen(t.Context(), "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	return l.Addr(), func() {
		cancel()
		<-served
	}
}

// TestCapturedAnswers: what go-micro v2's server answered is read as it was meant.
func TestCapturedAnswers(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		body string
		err  status.Error
	}{
		"md":           {body: `{"msg":"Hello John from v2"`},
		"call-proto":   {body: "\x0a\x12Hello John from v2"},
		"err-micro":    {err: status.Error{ID: "greeter", Code: status.InvalidArgument, Detail: "bad name: xx"}},
		"err-plain":    {err: status.Error{Code: status.Internal, Detail: "plain"}},
		"err-panic":    {err: status.Error{ID: "go.micro.server", Code: status.Internal, Detail: "panic recovered: boom"}},
		"err-nomethod": {err: status.Error{Code: status.Unimplemented, Detail: "unknown"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, sent := capture(t, name)
			addr := script(t, sent)
			c := newClient(t, newTransport(t, grpc.Options{}))
			rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: "application/json", Body: []byte("{}")}, client.Address(addr), client.Timeout(5*time.Second))
			if want.err.Code == 0 {
				if err != nil || !strings.HasPrefix(string(rsp.Body), want.body) {
					t.Fatalf("%v, %+v", err, rsp)
				}
				return
			}
			e, ok := errors.AsType[*status.Error](err)
			if !ok || e.Code != want.err.Code || !strings.Contains(e.Detail, want.err.Detail) || want.err.ID != "" && e.ID != want.err.ID || !e.Remote {
				t.Fatalf("%v", err)
			}
		})
	}
}

// script is a server that says what it is told when it has got the message of the first call: the settings at once.
func script(t *testing.T, says []byte) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := conn.Write(says[:15]); err != nil { // its SETTINGS
				return err
			}
			preface := make([]byte, len(http2.ClientPreface))
			if _, err := io.ReadFull(conn, preface); err != nil || !bytes.Equal(preface, []byte(http2.ClientPreface)) {
				return fmt.Errorf("the preface %q: %w", preface, err)
			}
			fr := http2.NewFramer(conn, conn)
			for {
				f, err := fr.ReadFrame()
				if err != nil {
					return err
				}
				if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
					break
				}
			}
			if _, err := conn.Write(says[15:]); err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, conn)
			return nil
		}()
	}()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}
