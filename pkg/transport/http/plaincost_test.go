//go:build unix

package http_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	services "github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// document is the message of BenchmarkPlainCost.
type document struct {
	Text string `json:"text"`
	ID   int64  `json:"id"`
}

// callerVariable makes TestPlainCaller the process that calls, for BenchmarkPlainCost.
const callerVariable = "MICRO_TEST_PLAIN_CALLER"

// slice is how many calls are made of one server before the other has its turn.
const slice = 512

// BenchmarkPlainCost compares the CPU time that a process spends on a call in plain HTTP and JSON: of a service, and of a handler
// of net/http by hand. Both serve from this process, by turns; another process calls. Ratio is the median of the turns' ratios.
func BenchmarkPlainCost(b *testing.B) {
	service, hand := serveDocuments(b), serveByHand(b)
	for _, size := range []int{16, 1 << 10} {
		body, err := json.Marshal(document{strings.Repeat("x", size), 7})
		if err != nil {
			b.Fatal(err)
		}
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%dB/%d", size, callers), func(b *testing.B) {
				call := startCaller(b, callers, body)
				for range 4 {
					call(service)
					call(hand)
				}
				var own, other time.Duration
				var ratios []float64
				turns := max((b.N+slice-1)/slice, 2)
				b.ResetTimer()
				for turn := range turns {
					var s, h time.Duration
					if turn%2 == 0 {
						s, h = call(service), call(hand)
					} else {
						h, s = call(hand), call(service)
					}
					own, other = own+s, other+h
					ratios = append(ratios, float64(s)/float64(h))
				}
				slices.Sort(ratios)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(own)/1e3/float64(turns*slice), "µs-service")
				b.ReportMetric(float64(other)/1e3/float64(turns*slice), "µs-by-hand")
				b.ReportMetric(ratios[len(ratios)/2], "ratio")
			})
		}
	}
}

func serveDocuments(b *testing.B) string {
	s, err := services.New("documents")
	if err != nil {
		b.Fatal(err)
	}
	if err := services.Handle(s, "Document.Echo", func(_ context.Context, d *document) (*document, error) { return d, nil }); err != nil {
		b.Fatal(err)
	}
	tr, err := http.New(http.Options{})
	if err != nil {
		b.Fatal(err)
	}
	l, err := tr.Listen(b.Context(), "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	b.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return address
}

func serveByHand(b *testing.B) string {
	mux := nethttp.NewServeMux()
	mux.HandleFunc("POST /Document.Echo", func(w nethttp.ResponseWriter, r *nethttp.Request) {
		var d document
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			nethttp.Error(w, err.Error(), nethttp.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(&d) // the caller has gone where it fails
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &nethttp.Server{Handler: mux} //nolint:gosec // its one client is this test's
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	b.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String()
}

// startCaller starts a process that calls. call has it make a slice of calls of a server, and gives what this process has spent
// meanwhile.
func startCaller(b *testing.B, callers int, body []byte) (call func(address string) time.Duration) {
	c := exec.Command(os.Args[0], "-test.run=^TestPlainCaller$")
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", callerVariable, callers, body))
	c.Stderr = os.Stderr
	to, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	from, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { to.Close(); _ = c.Wait() })
	answers := bufio.NewReader(from)
	return func(address string) time.Duration {
		before := spent(b)
		fmt.Fprintln(to, address)
		if line, err := answers.ReadString('\n'); err != nil || line != "done\n" {
			b.Fatalf("the caller told %q, %v", line, err)
		}
		return spent(b) - before
	}
}

// spent is the CPU time of this process.
func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestPlainCaller is BenchmarkPlainCost's caller, and no test.
func TestPlainCaller(t *testing.T) {
	said := os.Getenv(callerVariable)
	if said == "" {
		t.Skip("it is part of BenchmarkPlainCost")
	}
	number, body, _ := strings.Cut(said, " ")
	callers := 0
	if _, err := fmt.Sscan(number, &callers); err != nil {
		t.Fatal(err)
	}
	known := map[string][]*plainCaller{}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		address := lines.Text()
		for len(known[address]) < callers {
			known[address] = append(known[address], newPlainCaller(t, address, body))
		}
		var wg sync.WaitGroup
		for _, c := range known[address] {
			wg.Go(func() {
				for range slice / callers {
					if err := c.call(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		fmt.Println("done")
	}
	for _, list := range known {
		for _, c := range list {
			c.Close()
		}
	}
}

// plainCaller makes the same call again and again. The answers are as long as the first.
type plainCaller struct {
	net.Conn
	request, answer []byte
}

func newPlainCaller(t *testing.T, address, body string) *plainCaller {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &plainCaller{Conn: nc, request: fmt.Appendf(nil, "POST /Document.Echo HTTP/1.1\r\nHost: %s\r\nUser-Agent: curl/8.5.0\r\n"+
		"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", address, len(body), body)}
	if _, err := nc.Write(c.request); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	rsp, err := nethttp.ReadResponse(bufio.NewReader(io.TeeReader(nc, &seen)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	if got, err := io.ReadAll(rsp.Body); err != nil || rsp.StatusCode != nethttp.StatusOK || strings.TrimSpace(string(got)) != body {
		t.Fatalf("%s: %s %v", rsp.Status, got, err)
	}
	c.answer = make([]byte, seen.Len())
	return c
}

func (c *plainCaller) call() error {
	if _, err := c.Write(c.request); err != nil {
		return err
	}
	_, err := io.ReadFull(c.Conn, c.answer)
	return err
}
