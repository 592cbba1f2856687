package micro_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// curl runs curl and gives the answer's status, head and body.
func curl(t *testing.T, args ...string) (code, head, body string) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl")
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "-i", "--max-time", "20"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("curl %q: %v: %s", args, err, errs.String())
	}
	head, body, _ = strings.Cut(out.String(), "\r\n\r\n")
	for strings.HasPrefix(head, "HTTP/1.1 100") || strings.HasPrefix(head, "HTTP/1.1 101") {
		head, body, _ = strings.Cut(body, "\r\n\r\n")
	}
	fields := strings.Fields(head)
	if len(fields) < 2 {
		t.Fatalf("curl %q: %q", args, out.String())
	}
	return fields[1], strings.ToLower(head), body
}

// TestCurl: what curl gets of a service, over HTTP/1.1 and HTTP/2.
func TestCurl(t *testing.T) {
	t.Parallel()
	s, up := newService(t, newRegistry(t))
	_ = micro.Handle(s, "Say.Hello", hello)
	_ = micro.Handle(s, "Say.Size", func(_ context.Context, in *Hello) (*Greeting, error) {
		return &Greeting{Msg: fmt.Sprint(len(in.Name))}, nil
	})
	_ = micro.Handle(s, "Say.Fail", func(context.Context, *Hello) (*Greeting, error) {
		return nil, status.New(status.FailedPrecondition, "not\nnow")
	})
	_ = micro.Handle(s, "Say.Panic", func(context.Context, *Hello) (*Greeting, error) { panic("secret") })
	run(t, s)
	<-up
	url := "http://" + s.Node().Address
	const limit = 4 << 20
	around := len(`{"name":""}`)
	exact := file(t, `{"name":"`+strings.Repeat("x", limit-around)+`"}`)
	over := file(t, `{"name":"`+strings.Repeat("x", limit-around+1)+`"}`)
	js := []string{"-H", "Content-Type: application/json"}
	post := func(path, body string, more ...string) []string {
		return append(append([]string{"-d", body, url + path}, js...), more...)
	}
	tests := []struct {
		name string
		args []string
		code string
		want string // in the body; where code is no 200, in the error's detail
		head string
	}{
		{"a call", post("/Say.Hello", `{"name":"x"}`), "200", `{"msg":"Hello x"}`, "content-type: application/json"},
		{"by header", post("/", `{"name":"x"}`, "-H", "Micro-Endpoint: Say.Hello"), "200", `{"msg":"Hello x"}`, ""},
		{"parameters of the type", []string{"-d", `{"name":"x"}`, url + "/Say.Hello", "-H", "Content-Type: application/json; charset=utf-8"}, "200", "Hello x", ""},
		{"chunked", post("/Say.Hello", `{"name":"x"}`, "-H", "Transfer-Encoding: chunked"), "200", "Hello x", ""},
		{"no content type", []string{"-d", `{}`, url + "/Say.Hello", "-H", "Content-Type:"}, "415", "Content-Type", ""},
		{"a form", []string{"-d", `{}`, url + "/Say.Hello"}, "415", "application/x-www-form-urlencoded", ""},
		{"GET", []string{url + "/Say.Hello"}, "405", "POST", "allow: post"},
		{"PUT", post("/Say.Hello", `{}`, "-X", "PUT"), "405", "POST", "allow: post"},
		{"unknown endpoint", post("/Say.Nope", `{}`), "404", "Say.Nope", ""},
		{"unknown path", post("/a/b", `{}`), "404", "/a/b", ""},
		{"no path", post("/", `{}`), "404", "no endpoint", ""},
		{"a query", post("/Say.Hello?x=1", `{}`), "400", "query", ""},
		{"not JSON", post("/Say.Hello", `{"name":`), "400", "does not decode", ""},
		{"wrong type", post("/Say.Hello", `{"name":1}`), "400", "name", ""},
		{"unknown field", post("/Say.Hello", `{"nme":"x"}`), "400", "nme", ""},
		{"handler's error", post("/Say.Fail", `{}`), "412", "not\nnow", ""},
		{"panic", post("/Say.Panic", `{}`), "500", "panicked", ""},
		{"another service", post("/Say.Hello", `{}`, "-H", "Micro-Service: orders"), "421", "not orders", ""},
		{"foreign Host", post("/Say.Hello", `{}`, "-H", "Host: evil.example"), "421", "evil.example", ""},
		{"foreign Origin", post("/Say.Hello", `{}`, "-H", "Origin: http://evil.example"), "403", "evil.example", ""},
		{"local Origin", post("/Say.Hello", `{"name":"x"}`, "-H", "Origin: http://localhost:3000"), "200", "Hello x", ""},
		{"at the limit", []string{"--data-binary", "@" + exact, url + "/Say.Size", js[0], js[1]}, "200", fmt.Sprint(limit - around), ""},
		{"over the limit", []string{"--data-binary", "@" + over, url + "/Say.Size", js[0], js[1]}, "413", "4194304", ""},
		{"over the limit, chunked", []string{"--data-binary", "@" + over, url + "/Say.Size", js[0], js[1], "-H", "Transfer-Encoding: chunked"}, "413", "4194304", ""},
		{"an upgrade to another protocol", post("/Say.Hello", `{"name":"x"}`, "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"), "200", "Hello x", ""},
		{"Debug.Health", post("/Debug.Health", `{}`), "200", `{"status":"ok"}`, ""},
	}
	for _, protocol := range []string{"--http1.1", "--http2-prior-knowledge"} {
		for _, tt := range tests {
			h2 := protocol != "--http1.1"
			if h2 && (strings.Contains(tt.name, "chunked") || strings.Contains(tt.name, "upgrade")) {
				continue // there is no such thing in HTTP/2
			}
			t.Run(protocol[2:]+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				code, head, body := curl(t, append([]string{protocol}, tt.args...)...)
				if code != "200" {
					var e struct {
						ID, Detail, Status string
						Code               int
					}
					if err := json.Unmarshal([]byte(body), &e); err != nil || fmt.Sprint(e.Code) != code || e.ID == "" || e.Status == "" {
						t.Errorf("the body is no error: %v %q", err, body)
					}
					body = e.Detail
				}
				if code != tt.code || !strings.Contains(body, tt.want) || !strings.Contains(head, tt.head) {
					t.Errorf("got %s %q, want %s with %q\n%s", code, body, tt.code, tt.want, head)
				}
			})
		}
	}
	t.Run("head over the limit", func(t *testing.T) {
		t.Parallel()
		args := post("/Say.Hello", `{}`)
		for i := range 12 {
			args = append(args, "-H", fmt.Sprintf("X-%d: %s", i, strings.Repeat("y", 4000)))
		}
		if code, _, _ := curl(t, args...); code != "431" {
			t.Errorf("status %s", code)
		}
	})
}

// TestGoMicroCaller: the requests of go-micro's clients, as they were captured, get what those need.
func TestGoMicroCaller(t *testing.T) {
	t.Parallel()
	s, up := newService(t, newRegistry(t))
	_ = micro.Handle(s, "Say.Hello", func(ctx context.Context, in *struct {
		Name  string `json:"name"`
		Count int    `json:"count"`
	}) (*Greeting, error) {
		return &Greeting{Msg: fmt.Sprint("Hello ", in.Name, in.Count)}, nil
	})
	_ = micro.Handle(s, "Say.Fail", func(context.Context, *map[string]any) (*Greeting, error) {
		return nil, status.New(status.InvalidArgument, "bad name: xx")
	})
	run(t, s)
	<-up
	for _, tt := range []struct{ endpoint, body, failed string }{
		{"Say.Hello", `{"msg":"Hello John3"}`, ""},
		{"Say.Fail", "", `{"id":"greeter","code":400,"detail":"bad name: xx","status":"bad request"}`},
		{"Say.Nope", "", `"code":404`},
		{"Nope", "", `"code":404`},
	} {
		code, head, body := curl(t, "-d", `{"name":"John","count":3}`+"\n", "http://"+s.Node().Address+"/", "-A", "Go-http-client/1.1",
			"-H", "Accept: application/json", "-H", "Content-Type: application/json", "-H", "Micro-Endpoint: "+tt.endpoint, "-H", "Micro-From-Service: interop.client",
			"-H", "Micro-Id: 7", "-H", "Micro-Method: "+tt.endpoint, "-H", "Micro-Service: greeter", "-H", "Timeout: 5000000000")
		if code != "200" || body != tt.body || !strings.Contains(head, "\r\nmicro-id: 7") {
			t.Errorf("%s: %s %q\n%s", tt.endpoint, code, body, head)
		}
		if i := strings.Index(head, "\r\nmicro-error: "); (i >= 0) != (tt.failed != "") || i >= 0 && !strings.Contains(head[i:], tt.failed) {
			t.Errorf("%s: want the error %q\n%s", tt.endpoint, tt.failed, head)
		}
	}
}

func file(t *testing.T, content string) string {
	name := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestDeafHandler: a handler that does not look at its context keeps no caller waiting, and counts until it returns.
func TestDeafHandler(t *testing.T) {
	t.Parallel()
	s, up := newService(t, newRegistry(t), micro.ServerOptions(server.MaxCalls(1), server.HandlerTimeout(200*time.Millisecond)))
	release, returned := make(chan struct{}), make(chan struct{}, 10)
	_ = micro.Handle(s, "Say.Deaf", func(context.Context, *Hello) (*Greeting, error) {
		<-release
		returned <- struct{}{}
		return nil, nil
	})
	run(t, s)
	<-up
	url := "http://" + s.Node().Address
	deaf := []string{"-d", "{}", url + "/Say.Deaf", "-H", "Content-Type: application/json"}
	if code, _, body := curl(t, append(deaf, "-H", "Micro-Timeout: 100ms")...); code != "408" {
		t.Errorf("after the caller's time: %s %s", code, body)
	}
	if code, _, body := curl(t, deaf...); code != "429" {
		t.Errorf("while it still runs: %s %s", code, body)
	}
	if code, _, body := curl(t, "-d", "{}", url+"/Debug.Stats", "-H", "Content-Type: application/json"); code != "200" || !strings.Contains(body, `"inflight":1`) {
		t.Errorf("Debug.Stats: %s %s", code, body)
	}
	release <- struct{}{}
	<-returned
	for range 100 { // its slot is free in a moment
		if code, _, _ := curl(t, deaf...); code == "504" {
			close(release)
			return
		}
	}
	t.Error("the slot was not freed, or the server's own time does not end the wait")
	close(release)
}

// TestFault_C1_CancelStorm: most calls are given up at some moment; the others get their own answers, and nothing is left.
func TestFault_C1_CancelStorm(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	s, up := newService(t, reg)
	_ = micro.Handle(s, "Say.Echo", func(ctx context.Context, in *Hello) (*Greeting, error) {
		pause := time.NewTimer(time.Duration(rand.IntN(3000)) * time.Microsecond)
		defer pause.Stop()
		select {
		case <-pause.C:
			return &Greeting{Msg: in.Name}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	run(t, s)
	<-up
	c := newCaller(t, reg).Client()
	var answered atomic.Int64
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := range 60 {
				name := fmt.Sprintf("%d-%d-", w, i)
				if i%10 == 5 {
					name += strings.Repeat("x", 300_000) // several frames
				}
				ctx, cancel := context.WithCancel(context.Background())
				kept := rand.IntN(10) == 0
				if !kept {
					time.AfterFunc(time.Duration(rand.IntN(4000))*time.Microsecond, cancel)
				}
				rsp, err := client.Call[Greeting](ctx, c, "greeter", "Say.Echo", &Hello{Name: name}, client.Timeout(30*time.Second))
				switch {
				case err == nil && rsp.Msg != name:
					t.Errorf("call %.20s got the answer of %.20s", name, rsp.Msg)
				case err == nil:
					answered.Add(1)
				case kept:
					t.Errorf("a call that was not given up: %v", err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if answered.Load() == 0 {
		t.Error("no call was answered")
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		st, err := client.Call[server.Stats](t.Context(), c, "greeter", "Debug.Stats", nil)
		if err != nil {
			t.Fatal(err)
		}
		if st.Inflight == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d handlers still run", st.Inflight)
		}
	}
}

// TestSmallBesideLarge: small calls do not wait for large ones that share their connection.
func TestSmallBesideLarge(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	s, up := newService(t, reg)
	_ = s.Server().Handle(server.Endpoint{Name: "Say.Echo"}, func(_ context.Context, c *server.Call) error {
		body, err := c.RecvRaw()
		if err != nil {
			return err
		}
		return c.SendRaw("", body)
	})
	run(t, s)
	<-up
	c := newCaller(t, reg).Client()
	echo := func(size int) (time.Duration, error) {
		start := time.Now()
		rsp, err := c.Do(context.Background(), &client.Request{Service: "greeter", Endpoint: "Say.Echo", ContentType: "application/octet-stream", Body: make([]byte, size)}, client.Timeout(30*time.Second))
		if err == nil && len(rsp.Body) != size {
			err = fmt.Errorf("%d bytes came back of %d", len(rsp.Body), size)
		}
		return time.Since(start), err
	}
	var wg sync.WaitGroup
	var done atomic.Bool
	var mu sync.Mutex
	var large, small []time.Duration
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				took, err := echo(4 << 20)
				if err != nil {
					t.Errorf("4 MiB: %v", err)
					return
				}
				mu.Lock()
				large = append(large, took)
				mu.Unlock()
			}
		})
	}
	for start := time.Now(); time.Since(start) < 2*time.Second; {
		took, err := echo(16)
		if err != nil {
			t.Errorf("16 B: %v", err)
		}
		small = append(small, took)
	}
	done.Store(true)
	wg.Wait()
	slices.Sort(large)
	slices.Sort(small)
	// A call that waits for the four would take longer than any of them.
	if median := small[len(small)/2]; median > large[len(large)/2]/2 {
		t.Errorf("16 B took %v beside 4 MiB, which took %v", median, large[len(large)/2])
	}
	t.Logf("16 B: p50 %v, p99 %v; 4 MiB: p50 %v", small[len(small)/2], small[len(small)*99/100], large[len(large)/2])
}
