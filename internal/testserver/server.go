// Package testserver runs the real servers that tests of backends need, as processes that a test starts, kills and starts again,
// and stands between a test and its server as a [Relay]. Tests alone import it.
package testserver

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	startTime = 60 * time.Second // until a server answers
	pollTime  = 20 * time.Millisecond
)

// Server is a server process, which can be stopped and started anew on what it wrote. It is for one goroutine at a time.
type Server struct {
	// Dir is where it keeps its data, over restarts.
	Dir string
	// Addr is where it listens, host:port: free when it was made, and given to no other.
	Addr string
	// Listen is what it is told to listen on: Addr, unless it is on another machine.
	Listen string

	enter func(func() error) error // runs on its machine; nil: this one
	spec  Spec
	stdin io.WriteCloser
	cmd   *exec.Cmd
}

// Spec says how a server is run.
type Spec struct {
	// Command gives the command line and what is added to the environment. It is asked at each start, so that it can take
	// further ports that only that run has.
	Command func(s *Server) (argv, env []string)
	// Ready reports whether the server answers. It is asked until it does.
	Ready func(s *Server) bool
	// Taken is what the server says when another program has one of its ports. Default "address already in use".
	Taken string
}

// New gives a server that is not started, with its data below dir.
func New(dir string, spec Spec) *Server {
	if spec.Taken == "" {
		spec.Taken = "address already in use"
	}
	addr := FreeAddr()
	return &Server{Dir: dir, Addr: addr, Listen: addr, spec: spec}
}

// Another gives one more address for a server to listen on, and where it is reached.
func (s *Server) Another() (listen, addr string) {
	_, port, _ := net.SplitHostPort(FreeAddr())
	host, _, _ := net.SplitHostPort(s.Listen)
	reached, _, _ := net.SplitHostPort(s.Addr)
	return net.JoinHostPort(host, port), net.JoinHostPort(reached, port)
}

// begin starts a process on the server's machine.
func (s *Server) begin(cmd *exec.Cmd) error {
	if s.enter == nil {
		return cmd.Start()
	}
	return s.enter(cmd.Start)
}

// Own starts a server for a test, which is killed at its end.
func Own(t testing.TB, spec Spec) *Server {
	t.Helper()
	s := New(t.TempDir(), spec)
	t.Cleanup(func() { s.Stop("KILL") })
	s.MustStart(t)
	return s
}

// keep is what runs a server: it is killed when it is told to be, and at the latest when this process ends, however that is.
const keep = `"$@" & read -r signal; kill -"${signal:-KILL}" $!; wait $!`

// MustStart is Start for a test.
func (s *Server) MustStart(t testing.TB) {
	t.Helper()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
}

var errTaken = errors.New("a port is taken")

// Start starts the server and waits until it answers.
func (s *Server) Start() error {
	for deadline := time.Now().Add(startTime); ; time.Sleep(pollTime) {
		if err := s.once(deadline); !errors.Is(err, errTaken) || time.Now().After(deadline) {
			return err
		}
	}
}

func (s *Server) once(deadline time.Time) error {
	argv, env := s.spec.Command(s)
	s.cmd = exec.Command("sh", append([]string{"-c", keep, "sh"}, argv...)...)
	s.cmd.Env = append(os.Environ(), env...)
	log, err := os.Create(filepath.Join(s.Dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := s.begin(s.cmd); err != nil {
		return err
	}
	for ; ; time.Sleep(pollTime) {
		switch said := s.Log(); {
		case strings.Contains(said, s.spec.Taken):
			s.Stop("KILL")
			return fmt.Errorf("%s on %s: %w", argv[0], s.Addr, errTaken)
		case s.spec.Ready(s):
			return nil
		case time.Now().After(deadline):
			s.Stop("KILL")
			return fmt.Errorf("%s does not start on %s:\n%s", argv[0], s.Addr, said)
		}
	}
}

// Log gives what the server has said since it was started.
func (s *Server) Log() string {
	said, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	return string(said)
}

// Stop ends the server with a signal, such as KILL or TERM, and waits for it. One that does not run stays so.
func (s *Server) Stop(signal string) {
	if s.cmd == nil {
		return
	}
	_, _ = io.WriteString(s.stdin, signal+"\n")
	_ = s.stdin.Close()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// The ports that FreeAddr has yet to give are not those that systems give to whoever asks for any.
const (
	firstPort = 15000
	manyPorts = 15000
)

var ports atomic.Int64

// FreeAddr gives an address on loopback that nobody has, and none twice: what was stopped finds its own free.
func FreeAddr() string {
	ports.CompareAndSwap(0, 1+rand.Int64N(manyPorts))
	for {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", firstPort+ports.Add(1)%manyPorts))
		if err == nil {
			_ = l.Close()
			return l.Addr().String()
		}
	}
}

// Listening is a Ready that holds when something accepts connections at the server's address.
func Listening(s *Server) bool {
	c, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// Shared is a server of all tests of a package that leave it running: the one that an environment variable names, or one that is
// started for them. The zero value with Env and Spec set is ready; TestMain calls Stop when the tests have run.
type Shared struct {
	// Env names the variable with the host:port of a server that may be written to.
	Env string
	// Spec says how to run one.
	Spec Spec
	// Missing, where it is set, is asked first for what lacks to run one.
	Missing func() error

	once sync.Once
	skip error
	err  error
	addr string
	stop func()
}

// Addr gives the server's address. A test that cannot have one is skipped.
func (g *Shared) Addr(t testing.TB) string {
	t.Helper()
	g.once.Do(g.start)
	switch {
	case g.skip != nil:
		Skip(t, fmt.Sprintf("%v, or set %s to the host:port of one that may be written to", g.skip, g.Env))
	case g.err != nil:
		t.Fatal(g.err)
	}
	return g.addr
}

func (g *Shared) start() {
	if g.addr = os.Getenv(g.Env); g.addr != "" {
		return
	}
	if g.Missing != nil {
		if g.skip = g.Missing(); g.skip != nil {
			return
		}
	}
	dir, err := os.MkdirTemp("", "micro-test-")
	if err != nil {
		g.err = err
		return
	}
	s := New(dir, g.Spec)
	g.stop = func() { s.Stop("KILL"); _ = os.RemoveAll(dir) }
	g.addr, g.err = s.Addr, s.Start()
}

// Stop stops a server that was started.
func (g *Shared) Stop() {
	if g.stop != nil {
		g.stop()
	}
}

// Skip skips a test because this machine lacks something that it could have. CI takes that for a failure.
func Skip(t testing.TB, lacks string) {
	t.Helper()
	t.Skip("SKIPPED: " + lacks)
}
