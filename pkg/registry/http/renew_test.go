package http_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	stdhttp "net/http"
	"net/http/httputil"
	"regexp"
	"strings"
	"testing"
	"time"

	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
)

// TestRenewalsAreAnsweredAlike compares the answers to a renewal byte for byte: of the handler, and of the way past it. Who renews keeps its
// node, and is counted.
func TestRenewalsAreAnsweredAlike(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir()} {
		s := serve(t, registryserver.Options{Data: dir, MinTTL: time.Millisecond})
		c, err := net.Dial("tcp", s.address)
		must(t, err)
		defer c.Close()
		answers := bufio.NewReader(c)
		put := func(more string) string {
			t.Helper()
			_, err := fmt.Fprintf(c, "PUT /v1/nodes/a?ttl=2s HTTP/1.1\r\nHost: %s\r\n%sContent-Type: application/json\r\nMicro-Lease: %s\r\nContent-Length: %d\r\n\r\n%s",
				s.address, more, secretA, len(record), record)
			must(t, err)
			rsp, err := stdhttp.ReadResponse(answers, nil)
			must(t, err)
			defer rsp.Body.Close()
			text, err := httputil.DumpResponse(rsp, true)
			must(t, err)
			return regexp.MustCompile("Date: .*").ReplaceAllString(string(text), "Date: now")
		}
		if first := put(""); !strings.HasPrefix(first, "HTTP/1.1 201 ") {
			t.Fatal(first)
		}
		begun, n := time.Now(), 1
		for ; time.Since(begun) < 3*time.Second; n += 2 { // longer than the lease
			if quick, slow := put(""), put("X-Other: 1\r\n"); quick != slow || !strings.HasPrefix(quick, "HTTP/1.1 200 OK") || !strings.Contains(quick, `"ttl":"2s"`) {
				t.Fatalf("one is\n%s\nthe other\n%s", quick, slow)
			}
			time.Sleep(100 * time.Millisecond) // between renewals
		}
		rsp, err := stdhttp.Get(s.url() + "/metrics")
		must(t, err)
		text, err := io.ReadAll(rsp.Body)
		must(t, err)
		must(t, rsp.Body.Close())
		stdhttp.DefaultClient.CloseIdleConnections()
		if want := fmt.Sprintf("requests_total{method=\"PUT\",code=\"200\"} %d\n", n-1); !strings.Contains(string(text), want) {
			t.Errorf("want %s in\n%s", want, text)
		}
	}
}
