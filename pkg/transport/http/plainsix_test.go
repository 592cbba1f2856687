package http_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// slots are where go-micro's server has the requests of a connection, by Micro-Stream or else by Micro-Id. A slot is free some time after its
// answer was written, and what comes for it until then is lost.
type slots struct {
	mu   sync.Mutex
	busy map[string]bool
}

// take reports whether a slot was free.
func (s *slots) take(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[key] {
		return false
	}
	s.busy[key] = true
	return true
}

func (s *slots) free(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, key)
}

// serve answers until the client goes. A server that sees Micro-Id, as v6 does since it spells that as HTTP does, gives it back under its two
// names, but in errors. One that does not gives it where the codec found it in the body.
func (s *slots) serve(t *testing.T, g goMicro, sees bool) {
	echo := ""
	for first := true; ; first = false {
		h, err := g.hear()
		if err != nil {
			return
		}
		id := h.header.Get("Micro-Id")
		if first {
			echo = "Micro-Id: " + id + "\r\n"
		}
		key := h.header.Get("Micro-Stream")
		if key == "" && sees {
			key = id
		}
		if !s.take(key) {
			t.Errorf("the slot %q was not free: the call %s is lost", key, h.body)
		}
		own := ""
		if sees {
			own = fmt.Sprintf("X-Micro-Id: %s\r\n", id)
		}
		if h.body == `"fail"` {
			own = "Micro-Error: failed\r\nX-Micro-Error: failed\r\n"
		}
		g.say(echo+own, h.body)
		time.AfterFunc(time.Millisecond, func() { s.free(key) })
	}
}

// TestPlainSlots: no call is lost at a server of v6, before and after it has seen Micro-Id, not behind an error, nor where a caller gives each
// call the same number.
func TestPlainSlots(t *testing.T) {
	t.Parallel()
	for name, sees := range map[string]bool{"Micro-Id is not seen": false, "Micro-Id is seen": true} {
		for number, header := range map[string]metadata.MD{
			"own number":      helloHeader,
			"caller's number": metadata.Of(transport.HeaderEndpoint, "Say.Hello", transport.HeaderContentType, jsonType, transport.HeaderID, "0"),
		} {
			t.Run(name+", "+number, func(t *testing.T) {
				t.Parallel()
				addr := goMicroServer(t, func(g goMicro) { (&slots{busy: map[string]bool{}}).serve(t, g, sees) })
				caller := dialCaller(t, http.Options{}, addr)
				for n := range 50 {
					body := fmt.Sprint(n)
					if n%7 == 3 {
						body = `"fail"`
					}
					if n == 1 { // what the server is shows in its first answer that is no error
						time.Sleep(2 * time.Millisecond)
					}
					var rsp transport.Message
					err := caller.Call(t.Context(), &transport.Message{Header: header, Body: []byte(body), Timeout: 3 * time.Second}, &rsp)
					if failed := rsp.Header.Get(transport.HeaderError) != ""; err != nil || failed != (body == `"fail"`) {
						t.Fatalf("call %d: %q %q, %v", n, rsp.Header, rsp.Body, err)
					}
				}
			})
		}
	}
}
