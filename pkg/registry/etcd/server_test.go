package etcd_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// needs is what a test that wants a server is skipped with.
const needs = "SKIPPED: no etcd: install Debian's etcd-server, or set ETCD_ADDR to the host:port of one that may be written to"

// server is an etcd of a test's own, which it can stop and start anew.
type server struct {
	dir    string
	addr   string   // host:port for clients
	flags  []string // beside those that every server has
	scheme string   // for clients
	stdin  io.WriteCloser
	cmd    *exec.Cmd
}

// keep is what runs an etcd: it is killed when it is told to be, and at the latest when this process ends, however that is.
const keep = `"$@" & read -r signal; kill -"${signal:-KILL}" $!; wait $!`

// newServer gives a server that is not started. It is an error without etcd in PATH.
func newServer(dir string) (*server, error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return nil, err
	}
	return &server{dir: dir, addr: freeAddr(), scheme: "http"}, nil
}

// own starts a server for a test, which is stopped at its end.
func own(t *testing.T, flags ...string) *server {
	t.Helper()
	s := unstarted(t, flags...)
	s.start(t)
	return s
}

// unstarted gives a server that the test starts.
func unstarted(t *testing.T, flags ...string) *server {
	t.Helper()
	s, err := newServer(t.TempDir())
	if err != nil {
		t.Skip(needs)
	}
	s.flags = flags
	t.Cleanup(func() { s.stop("KILL") })
	return s
}

// ports are those that freeAddr has yet to give: not those that systems give to whoever asks for any.
var ports atomic.Int64

// freeAddr gives an address that nobody has, and none twice: what was stopped finds its own free.
func freeAddr() string {
	ports.CompareAndSwap(0, 15000+rand.Int64N(15000))
	for {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 15000+ports.Add(1)%15000))
		if err == nil {
			_ = l.Close()
			return l.Addr().String()
		}
	}
}

func (s *server) start(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

// errTaken: another program has a port of the server's.
var errTaken = errors.New("address already in use")

// run starts the server and waits until it answers.
func (s *server) run() error {
	for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := s.once(deadline); !errors.Is(err, errTaken) || time.Now().After(deadline) {
			return err
		}
	}
}

func (s *server) once(deadline time.Time) error {
	client, peer, metrics := s.scheme+"://"+s.addr, "http://"+freeAddr(), "http://"+freeAddr()
	s.cmd = exec.Command("sh", append([]string{"-c", keep, "sh", "etcd", "--data-dir", filepath.Join(s.dir, "data"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
		"--listen-metrics-urls", metrics, "--logger", "zap", "--log-level", "error"}, s.flags...)...)
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for ; ; time.Sleep(20 * time.Millisecond) {
		said, _ := os.ReadFile(log.Name())
		switch {
		case strings.Contains(string(said), errTaken.Error()):
			s.stop("KILL")
			return fmt.Errorf("%s: %w", s.addr, errTaken)
		case healthy(metrics + "/health"):
			return nil
		case time.Now().After(deadline):
			s.stop("KILL")
			return fmt.Errorf("etcd does not start on %s:\n%s", s.addr, said)
		}
	}
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

// stop ends the server with a signal, and waits for it.
func (s *server) stop(signal string) {
	if s.cmd == nil {
		return
	}
	_, _ = io.WriteString(s.stdin, signal+"\n")
	_ = s.stdin.Close()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// sharedServer is the server of all tests that leave it running: the one of ETCD_ADDR, or one that is started for them.
// Each test has a prefix of its own.
var sharedServer struct {
	once sync.Once
	addr string
	err  error
	stop func()
}

func shared(t testing.TB) string {
	t.Helper()
	g := &sharedServer
	g.once.Do(func() {
		if g.addr = os.Getenv("ETCD_ADDR"); g.addr != "" {
			return
		}
		var dir string
		if dir, g.err = os.MkdirTemp("", "etcd-test-"); g.err != nil {
			return
		}
		g.stop = func() { _ = os.RemoveAll(dir) }
		var s *server
		if s, g.err = newServer(dir); g.err != nil {
			return
		}
		g.stop = func() { s.stop("KILL"); _ = os.RemoveAll(dir) }
		g.addr, g.err = s.addr, s.run()
	})
	switch {
	case g.err != nil && strings.Contains(g.err.Error(), exec.ErrNotFound.Error()):
		t.Skip(needs)
	case g.err != nil:
		t.Fatal(g.err)
	}
	return g.addr
}
