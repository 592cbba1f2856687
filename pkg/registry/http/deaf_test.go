package http_test

import (
	"fmt"
	"net"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
)

// TestWatchersThatDoNotRead hold no line each: what a server has for them is no more than its lines, once. Not parallel: it counts memory.
func TestWatchersThatDoNotRead(t *testing.T) {
	const nodes, size, watchers, changes = 3000, 4 << 10, 40, 6
	for name, query := range map[string]string{"of all": "", "of a service": "service=greeter"} {
		t.Run(name, func(t *testing.T) {
			s := handler(t, registryserver.Options{MaxWrites: 10_000})
			put := func(i int, version string) {
				t.Helper()
				body := fmt.Sprintf(`{"service":"greeter","version":"%s","address":"127.0.0.1:1","metadata":{"x":"%s"}}`, version, strings.Repeat("x", size))
				if w := ask(s, fmt.Sprint("PUT /v1/nodes/n", i), body, "Micro-Lease: "+fmt.Sprintf("%032x", i)); w.Code > 201 {
					t.Fatal(w.Code, w.Body)
				}
			}
			for i := range nodes {
				put(i, "1")
			}
			live := httptest.NewServer(s)
			defer live.Close()
			before := heap()
			for range watchers {
				c, err := net.Dial("tcp", live.Listener.Addr().String())
				must(t, err)
				defer c.Close()
				must(t, c.(*net.TCPConn).SetReadBuffer(4096))
				_, err = fmt.Fprintf(c, "GET /v1/watch?%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", query)
				must(t, err)
			}
			eventually(t, "not all watches are there", func() bool { return s.Health().Watches == watchers })
			eventually(t, "no line is being sent", func() bool { return sending(t, s) > nodes*size })
			for i := range changes {
				put(i, "2")
				if got := sending(t, s); got > 3*nodes*size {
					t.Errorf("%d bytes are being sent, of a set of %d", got, nodes*size)
				}
			}
			// Up to three sets are being sent, the latest one is kept, and a line has more than its metadata.
			if more := heap() - before; more > 5*nodes*size {
				t.Errorf("%d watchers that read nothing take %d MiB, of a set of %d", watchers, more>>20, nodes*size>>20)
			}
		})
	}
}

func heap() int {
	runtime.GC()
	runtime.GC() // what a pool has is let go of by the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// sending is how much the server says that it is sending.
func sending(t *testing.T, s *registryserver.Server) int {
	t.Helper()
	found := regexp.MustCompile(`(?m)^micro_registry_sending_bytes ([0-9]+)$`).FindStringSubmatch(ask(s, "GET /metrics", "").Body.String())
	if found == nil {
		t.Fatal("there is no such metric")
	}
	n, err := strconv.Atoi(found[1])
	must(t, err)
	return n
}
