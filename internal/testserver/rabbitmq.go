package testserver

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// rabbitPlugins is where RabbitMQ's applications are.
const rabbitPlugins = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins"

// rabbitScript starts RabbitMQ as whoever runs it; the command of that name in the PATH wants to be root, and becomes another user.
const rabbitScript = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// RabbitMQ runs RabbitMQ servers for a package's tests: a shared one, some that are lent, and own ones. They share an epmd, by which Erlang's nodes
// find each other: one that a server starts outlives it. Starting one takes some 3 s of a processor. TestMain calls Stop when the tests have run.
type RabbitMQ struct {
	once   sync.Once
	epmd   *Server
	beside []*Server // epmds on machines of their own
	err    error
	dir    string
	apps   string // a directory with the applications that a server without plugins needs; "" where they are not known
	shared Shared

	lent chan *Server // those that are not lent now; nil is one that was not made yet
}

// lends is how many servers there are to lend.
const lends = 2

// NewRabbitMQ gives one that has not started anything. RABBIT_ADDR names a server that the tests may write to as guest, in the
// place of the shared one.
func NewRabbitMQ() *RabbitMQ {
	g := &RabbitMQ{lent: make(chan *Server, lends)}
	for range lends {
		g.lent <- nil
	}
	g.shared = Shared{Env: "RABBIT_ADDR", Missing: rabbitMissing, Spec: g.Spec()}
	return g
}

func rabbitMissing() error {
	for _, command := range []string{rabbitScript, "epmd"} {
		if _, err := exec.LookPath(command); err != nil {
			return errors.New("no RabbitMQ: install Debian's rabbitmq-server")
		}
	}
	return nil
}

// Addr gives the address of the shared server, which tests leave running.
func (g *RabbitMQ) Addr(t testing.TB) string {
	t.Helper()
	return g.shared.Addr(t)
}

// Own starts a server for a test, which is killed at its end. config is of rabbitmq.conf.
func (g *RabbitMQ) Own(t testing.TB, config ...string) *Server {
	t.Helper()
	if err := rabbitMissing(); err != nil {
		Skip(t, err.Error())
	}
	return Own(t, g.Spec(config...))
}

// Lend gives a server to a test that kills it and starts it again, for as long as the test runs: others wait for it, and find in it
// what was there before.
func (g *RabbitMQ) Lend(t testing.TB) *Server {
	t.Helper()
	if err := rabbitMissing(); err != nil {
		Skip(t, err.Error())
	}
	s := <-g.lent
	t.Cleanup(func() { g.lent <- s })
	if s == nil {
		dir, err := os.MkdirTemp("", "micro-test-")
		if err != nil {
			t.Fatal(err)
		}
		s = New(dir, g.Spec())
	}
	if s.cmd == nil {
		s.MustStart(t)
	}
	return s
}

// Spec says how a server is run, with lines of rabbitmq.conf beside those that every one has; ADDR in them is the server's address.
// A server that listens by TLS alone has a line "listeners.tcp = none".
func (g *RabbitMQ) Spec(config ...string) Spec {
	return Spec{
		Command: func(s *Server) (argv, env []string) {
			g.once.Do(g.prepare)
			if g.err != nil {
				return []string{"false"}, nil // Start tells what epmd said: nothing answers
			}
			_, epmdPort, _ := net.SplitHostPort(g.epmd.Addr)
			if s.enter != nil {
				epmdPort = g.epmdBeside(s)
			}
			host, port, _ := net.SplitHostPort(s.Listen)
			_, distPort, _ := net.SplitHostPort(FreeAddr())
			lines := append([]string{"log.console = true", "log.console.level = warning", "log.file = false", "disk_free_limit.absolute = 1MB"}, config...)
			conf := filepath.Join(s.Dir, "rabbitmq.conf")
			_ = os.WriteFile(conf, []byte(strings.ReplaceAll(strings.Join(lines, "\n")+"\n", "ADDR", s.Addr)), 0o600)
			_ = os.WriteFile(filepath.Join(s.Dir, "plugins"), []byte("[].\n"), 0o600)
			return []string{rabbitScript}, append(g.lean(),
				"HOME="+s.Dir, "RABBITMQ_NODENAME=micro"+port+"@localhost", "RABBITMQ_NODE_IP_ADDRESS="+host, "RABBITMQ_NODE_PORT="+port,
				"RABBITMQ_DIST_PORT="+distPort, "RABBITMQ_MNESIA_BASE="+filepath.Join(s.Dir, "mnesia"), "RABBITMQ_LOG_BASE="+filepath.Join(s.Dir, "logs"),
				"RABBITMQ_CONFIG_FILE="+conf, "RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(s.Dir, "plugins"), "RABBITMQ_CONF_ENV_FILE=/dev/null",
				// The script becomes the server with this, and is not a parent of it, so that a signal reaches the server.
				"RABBITMQ_ALLOW_INPUT=true", "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput +S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}", "ERL_CRASH_DUMP=/dev/null", "ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT="+epmdPort,
			)
		},
		Ready: rabbitAnswers,
		Taken: "eaddrinuse",
	}
}

// rabbitAnswers reports whether a server has started what it needs for clients: it says so, after it began to listen.
func rabbitAnswers(s *Server) bool {
	return strings.Contains(s.Log(), "completed with") && Listening(s)
}

// lean gives the environment in which a server looks for its code among what it needs alone: Erlang looks for each of many hundred modules in
// each directory until it finds it, and that takes a third of a start.
func (g *RabbitMQ) lean() []string {
	if g.apps == "" {
		return nil
	}
	return []string{"RABBITMQ_PLUGINS_DIR=" + g.apps}
}

// selectApps makes the directory that lean names.
func (g *RabbitMQ) selectApps() {
	all, _ := filepath.Glob(rabbitPlugins + "/*-*") // the pattern is a good one
	apps := filepath.Join(g.dir, "apps")
	if len(all) == 0 || os.Mkdir(apps, 0o700) != nil {
		return
	}
	for _, path := range all {
		name, _, _ := strings.Cut(filepath.Base(path), "-")
		if strings.HasPrefix(name, "rabbitmq_") && name != "rabbitmq_prelaunch" || slices.Contains(ofPlugins, name) {
			continue
		}
		if os.Symlink(path, filepath.Join(apps, filepath.Base(path))) != nil {
			return
		}
	}
	g.apps = apps
}

// ofPlugins are the applications that plugins alone need.
var ofPlugins = []string{"accept", "amqp10_client", "amqp_client", "base64url", "cowboy", "cowlib", "eetcd", "gun", "jose", "prometheus", "quantile_estimator"}

// Beyond says how a server is run on a machine of its own, for NewBeyond.
func (g *RabbitMQ) Beyond(t *testing.T) Spec {
	t.Helper()
	if err := rabbitMissing(); err != nil {
		Skip(t, err.Error())
	}
	return g.Spec("loopback_users = none") // guest comes from elsewhere
}

// epmdBeside starts an epmd on the machine of a server, which has the only one there, until Stop. It gives its port.
func (g *RabbitMQ) epmdBeside(s *Server) string {
	e := New(g.dir, epmdSpec)
	e.enter = s.enter
	e.spec.Ready = func(e *Server) bool {
		return s.enter(func() error {
			if !Listening(e) {
				return errors.New("not yet")
			}
			return nil
		}) == nil
	}
	g.err = e.Start()
	g.beside = append(g.beside, e)
	_, port, _ := net.SplitHostPort(e.Addr)
	return port
}

// prepare starts the epmd of all servers, in the foreground.
func (g *RabbitMQ) prepare() {
	if g.dir, g.err = os.MkdirTemp("", "micro-test-"); g.err != nil {
		return
	}
	g.selectApps()
	g.epmd = New(g.dir, epmdSpec)
	g.err = g.epmd.Start()
}

var epmdSpec = Spec{
	Command: func(s *Server) (argv, env []string) {
		_, port, _ := net.SplitHostPort(s.Addr)
		return []string{"epmd", "-port", port, "-address", "127.0.0.1"}, nil
	},
	Ready: Listening,
}

// Stop stops the shared server, where it was started, and epmd.
func (g *RabbitMQ) Stop() {
	g.shared.Stop()
	for range lends {
		if s := <-g.lent; s != nil {
			s.Stop("KILL")
			_ = os.RemoveAll(s.Dir)
		}
	}
	for _, e := range append(g.beside, g.epmd) {
		if e != nil {
			e.Stop("KILL")
		}
	}
	if g.dir != "" {
		_ = os.RemoveAll(g.dir)
	}
}
