package commands_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/cb02dfca/micro/commands"
)

// goMicro serves as go-micro does, without describing itself: Say.Hello, and the stream Say.Chat, which "end" ends.
func goMicro(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer nc.Close()
				talkGoMicro(nc)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	return l.Addr().String()
}

func talkGoMicro(nc net.Conn) {
	in := bufio.NewReader(nc)
	opened := false
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		failed := ""
		switch r.Header.Get("Micro-Endpoint") {
		case "Say.Hello":
		case "Say.Chat":
			if !opened {
				opened = true
				continue
			}
			if strings.Contains(string(body), "end") {
				failed, body = "EOS", nil
			}
		default:
			failed, body = "rpc: can't find service Debug", nil
		}
		if failed != "" {
			failed = "Micro-Error: " + failed + "\r\n"
		}
		_, _ = fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nUser-Agent: x\r\nContent-Length: %d\r\n%s\r\n%s", len(body), failed, body)
	}
}

// TestGoMicro: a service of go-micro is called and streamed with, though nobody tells what it serves.
func TestGoMicro(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address := goMicro(t)
	for name, c := range map[string]struct {
		line, stdin    string
		code           int
		stdout, stderr string
	}{
		"a call":              {"call --address ADDRESS greeter Say.Hello name=a", "", 0, "{\"name\":\"a\"}\n", ""},
		"a call, known":       {"call --address mucp://ADDRESS greeter Say.Hello name=a", "", 0, "{\"name\":\"a\"}\n", ""},
		"a stream":            {"stream --address ADDRESS greeter Say.Chat", `{"name":"a"}{"name":"b"}{"end":1}`, 0, "{\"name\":\"a\"}\n{\"name\":\"b\"}\n", ""},
		"a stream, known":     {"stream --address mucp://ADDRESS greeter Say.Chat name=a", `{"end":1}`, 0, "{\"name\":\"a\"}\n", ""},
		"a codec it lacks":    {"call --address mucp://ADDRESS greeter Say.Hello name=a -H content-type:application/msgpack", "", 4, "", "(1 tried)\n  mucp://ADDRESS  ADDRESS is a service of go-micro, which takes no content type"},
		"an unknown protocol": {"call --address smoke://ADDRESS greeter Say.Hello", "", 2, "", "unknown scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, stdout, stderr := w.deps(pipe, nil, strings.Fields(strings.ReplaceAll(c.line, "ADDRESS", address))...)
			want := strings.ReplaceAll(c.stderr, "ADDRESS", address)
			d.Backends.Transports = commands.DefaultBackends().Transports
			d.Stdin, d.StdinData = strings.NewReader(c.stdin), c.stdin != ""
			if code := commands.Main(t.Context(), d); code != c.code || stdout.String() != c.stdout || !strings.Contains(stderr.String(), want) || c.stderr == "" && stderr.Len() > 0 {
				t.Errorf("exit %d, want %d\n%q\nwant\n%q\n%s", code, c.code, stdout, c.stdout, stderr)
			}
		})
	}
}
