package consul_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// request asks an agent.
var request = testserver.Request

// secured starts a consul that speaks TLS alone, with whoever has a certificate of its authority.
func secured(t *testing.T, ca, cert, key string) *testserver.Server {
	t.Helper()
	s := testserver.Consul()
	plain := s.Command
	s.Command = func(s *testserver.Server) (argv, env []string) {
		argv, env = plain(s)
		_, port, _ := net.SplitHostPort(s.Addr)
		for i := range argv {
			if argv[i] == "-http-port" {
				argv[i+1] = "-1"
			}
		}
		return append(argv, "-hcl", fmt.Sprintf(`ports { https = %s }, ca_file = %q, cert_file = %q, key_file = %q, verify_incoming_https = true`, port, ca, cert, key)), env
	}
	s.Ready = testserver.Listening
	return start(t, s)
}

// own starts a consul for a test, which is killed at its end.
func own(t *testing.T, flags ...string) *testserver.Server {
	t.Helper()
	return start(t, testserver.Consul(flags...))
}

func start(t *testing.T, spec testserver.Spec) *testserver.Server {
	t.Helper()
	s := made(t, spec)
	s.MustStart(t)
	return s
}

// unstarted gives a consul that the test starts.
func unstarted(t *testing.T, flags ...string) *testserver.Server {
	t.Helper()
	return made(t, testserver.Consul(flags...))
}

func made(t *testing.T, spec testserver.Spec) *testserver.Server {
	t.Helper()
	if err := testserver.ConsulMissing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	s := testserver.New(t.TempDir(), spec)
	t.Cleanup(func() { s.Stop("KILL") })
	return s
}

// envAddr names the variable with the host:port of an agent whose services tests may remove.
const envAddr = "CONSUL_ADDR"

// emptied are agents without a service, that a test takes and gives back: Consul has no prefix by which tests could share one.
var emptied struct {
	mu   sync.Mutex
	free []string
	all  []func() // that stop them
	turn chan struct{}
}

func init() {
	emptied.turn = make(chan struct{}, 1)
}

// addrOf gives the address of an agent without services, that no other test has until the end of this one.
func addrOf(t *testing.T) string {
	t.Helper()
	if addr := os.Getenv(envAddr); addr != "" {
		emptied.turn <- struct{}{}
		t.Cleanup(func() { <-emptied.turn })
		empty(t, addr)
		return addr
	}
	if err := testserver.ConsulMissing(); err != nil {
		testserver.Skip(t, fmt.Sprintf("%v, or set %s to the host:port of an agent whose services may be removed", err, envAddr))
	}
	addr := take(t)
	t.Cleanup(func() {
		empty(t, addr)
		emptied.mu.Lock()
		defer emptied.mu.Unlock()
		emptied.free = append(emptied.free, addr)
	})
	return addr
}

func take(t *testing.T) string {
	t.Helper()
	emptied.mu.Lock()
	if n := len(emptied.free); n > 0 {
		defer emptied.mu.Unlock()
		addr := emptied.free[n-1]
		emptied.free = emptied.free[:n-1]
		return addr
	}
	emptied.mu.Unlock()
	dir, err := os.MkdirTemp("", "micro-test-")
	must(t, err)
	s := testserver.New(dir, testserver.Consul())
	s.MustStart(t)
	emptied.mu.Lock()
	defer emptied.mu.Unlock()
	emptied.all = append(emptied.all, func() { s.Stop("KILL"); _ = os.RemoveAll(dir) })
	return s.Addr
}

// empty removes an agent's services.
func empty(t *testing.T, addr string) {
	t.Helper()
	registrytest.Eventually(t, "the agent is empty", func() bool {
		_, body := request(http.MethodGet, "http://"+addr+"/v1/agent/services", "")
		var services map[string]any
		if json.Unmarshal([]byte(body), &services) != nil {
			return false
		}
		for id := range services {
			request(http.MethodPut, "http://"+addr+"/v1/agent/service/deregister/"+id, "")
		}
		_, body = request(http.MethodGet, "http://"+addr+"/v1/catalog/services", "")
		var names map[string]any
		return json.Unmarshal([]byte(body), &names) == nil && len(names) == 1 && len(services) == 0
	})
}

// stopAll stops the agents of all tests.
func stopAll() {
	for _, stop := range emptied.all {
		stop()
	}
}
