package etcd_test

import (
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
)

// missing says what lacks to run an etcd.
func missing() error {
	if _, err := exec.LookPath("etcd"); err != nil {
		return errors.New("no etcd: install Debian's etcd-server")
	}
	return nil
}

// shared is the etcd of all tests that leave it running. Each test has a prefix of its own.
var shared = testserver.Shared{Env: "ETCD_ADDR", Missing: missing, Spec: spec()}

// spec runs an etcd with flags beside those that every one has.
func spec(flags ...string) testserver.Spec {
	scheme, metrics := "http", ""
	if slices.Contains(flags, "--cert-file") {
		scheme = "https"
	}
	return testserver.Spec{
		Command: func(s *testserver.Server) (argv, env []string) {
			client, peer := scheme+"://"+s.Addr, "http://"+testserver.FreeAddr()
			metrics = "http://" + testserver.FreeAddr()
			return append([]string{
				"etcd", "--data-dir", filepath.Join(s.Dir, "data"),
				"--listen-client-urls", client, "--advertise-client-urls", client,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
				"--listen-metrics-urls", metrics, "--logger", "zap", "--log-level", "error",
			}, flags...), nil
		},
		Ready: func(*testserver.Server) bool { return healthy(metrics + "/health") },
	}
}

// own starts a server for a test, which is stopped at its end.
func own(t *testing.T, flags ...string) *testserver.Server {
	t.Helper()
	s := unstarted(t, flags...)
	s.MustStart(t)
	return s
}

// unstarted gives a server that the test starts.
func unstarted(t *testing.T, flags ...string) *testserver.Server {
	t.Helper()
	if err := missing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	s := testserver.New(t.TempDir(), spec(flags...))
	t.Cleanup(func() { s.Stop("KILL") })
	return s
}

func healthy(url string) bool {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	rsp, err := client.Get(url)
	if err != nil {
		return false
	}
	defer rsp.Body.Close()
	body, _ := io.ReadAll(rsp.Body)
	return strings.Contains(string(body), `"health":"true"`)
}
