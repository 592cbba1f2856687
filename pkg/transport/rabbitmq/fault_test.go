package rabbitmq_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/rabbitmq"
)

// pair gives both ends of a connection, each of a transport of its own.
func pair(t *testing.T, client, server *rabbitmq.Transport) (c, s transport.Conn) {
	t.Helper()
	l, err := server.Listen(t.Context(), "")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c, err = client.Dial(t.Context(), l.Addr())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	s, err = l.Accept()
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return c, s
}

// recv reads within the time of a test.
func recv(t *testing.T, c transport.Conn) (*transport.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	var m transport.Message
	err := c.Recv(ctx, &m)
	if ctx.Err() != nil {
		t.Fatal("Recv waited in vain")
	}
	return &m, err
}

// A peer whose process is killed is noticed: by a client at its next message, by a server in a while.
func TestPeerKilled(t *testing.T) {
	t.Parallel()
	addr := servers.Addr(t)
	tr := open(t, rabbitmq.Options{Addrs: []string{addr}})
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		at, kill := spawn(t, addr, "listen", "")
		c, err := tr.Dial(t.Context(), at)
		must(t, err)
		defer c.Close()
		idle, err := tr.Dial(t.Context(), at)
		must(t, err)
		defer idle.Close()
		must(t, c.Send(t.Context(), &transport.Message{Kind: transport.Ping, ID: 1}))
		if m, err := recv(t, c); err != nil || m.Kind != transport.Pong {
			t.Fatalf("%v, %v, want a Pong", m.Kind, err)
		}
		kill()
		eventually(t, "a message does not arrive", func() bool {
			err := c.Send(t.Context(), &transport.Message{Kind: transport.Ping, ID: 2})
			return transport.NotSent(err) && strings.Contains(err.Error(), "the peer is gone")
		})
		for _, c := range []transport.Conn{c, idle} {
			if _, err := recv(t, c); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("Recv gave %v, want an error that is no EOF", err)
			}
		}
		if _, err := tr.Dial(t.Context(), at); !transport.NotSent(err) || !strings.Contains(err.Error(), "nobody listens there") {
			t.Errorf("Dial gave %v", err)
		}
	})
	t.Run("client", func(t *testing.T) {
		t.Parallel()
		l, err := tr.Listen(t.Context(), "")
		must(t, err)
		defer l.Close()
		_, kill := spawn(t, addr, "dial", l.Addr())
		s, err := l.Accept()
		must(t, err)
		defer s.Close()
		kill()
		if _, err := recv(t, s); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("Recv gave %v, want an error that is no EOF", err)
		}
	})
}

// childRole is the environment variable that makes the test binary a peer: RabbitMQ's address, "listen" or "dial", and the address
// to dial.
const childRole = "RABBIT_TEST_CHILD"

func childMain() int {
	args := strings.Fields(os.Getenv(childRole))
	ctx := context.Background()
	err := func() error {
		tr, err := rabbitmq.New(rabbitmq.Options{Addrs: args[:1]})
		if err != nil {
			return err
		}
		if args[1] == "dial" {
			_, err = tr.Dial(ctx, args[2])
			fmt.Println("dialled")
			return err
		}
		l, err := tr.Listen(ctx, "")
		if err != nil {
			return err
		}
		fmt.Println(l.Addr())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _ = c.Recv(ctx, new(transport.Message)) }() // answers pings
			}
		}()
		return nil
	}()
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // the end of the tests
	return 0
}

// spawn starts a peer, and gives its first line and what kills it.
func spawn(t *testing.T, args ...string) (line string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childRole+"="+strings.Join(args, " "))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	kill = func() {
		_ = cmd.Process.Kill()
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	line, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error") {
		t.Fatalf("the process said %q, %v", line, err)
	}
	return strings.TrimSpace(line), kill
}

// What breaks between one end and RabbitMQ breaks the connection at both; the listener is there again, at its address.
func TestConnectionBreaks(t *testing.T) {
	t.Parallel()
	addr := servers.Addr(t)
	way := testserver.NewRelay(t, addr)
	client, server := open(t, rabbitmq.Options{Addrs: []string{addr}}), open(t, rabbitmq.Options{Addrs: []string{way.Addr}})
	l, err := server.Listen(t.Context(), "micro.test."+fmt.Sprint(time.Now().UnixNano()))
	must(t, err)
	defer l.Close()
	for range 3 {
		c, err := client.Dial(t.Context(), l.Addr())
		must(t, err)
		s, err := l.Accept()
		must(t, err)
		way.Kill()
		for _, end := range []transport.Conn{c, s} {
			if _, err := recv(t, end); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("Recv gave %v, want an error that is no EOF", err)
			}
			if err := end.Send(t.Context(), &transport.Message{Kind: transport.Ping}); !transport.NotSent(err) {
				t.Errorf("Send gave %v, want ErrNotSent", err)
			}
			_ = end.Close()
		}
		if _, err := server.Dial(t.Context(), l.Addr()); !transport.NotSent(err) || !strings.Contains(err.Error(), "rabbitmq "+way.Addr+" is not answering") {
			t.Errorf("Dial gave %v", err)
		}
		way.Revive()
		eventually(t, "the listener is there again", func() bool {
			c, err := client.Dial(t.Context(), l.Addr())
			if err != nil {
				return false
			}
			s, err := l.Accept()
			must(t, err)
			_ = c.Close()
			_, err = recv(t, s)
			return errors.Is(err, io.EOF)
		})
	}
}

// A RabbitMQ that is short of memory takes no messages: Send waits, and gives up with its context.
func TestShortOfMemory(t *testing.T) {
	t.Parallel()
	s := servers.Own(t, "vm_memory_high_watermark.absolute = 1MB")
	tr := open(t, rabbitmq.Options{Addrs: []string{s.Addr}})
	l, err := tr.Listen(t.Context(), "")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := tr.Dial(ctx, l.Addr()); !transport.NotSent(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial gave %v, want ErrNotSent and DeadlineExceeded", err)
	}
	must(t, l.Close())
	must(t, tr.Close())
	if took := time.Since(begun); took > wait {
		t.Errorf("that took %v", took)
	}
}

const password = "s3cret-word"

func TestLogin(t *testing.T) {
	t.Parallel()
	addr := servers.Addr(t)
	for _, tt := range []struct {
		name, user, password, vhost string
		code                        status.Code
		text                        string
	}{
		{"a wrong password", "svc", password, "", status.Unauthenticated, `user "svc": wrong name or password`},
		{"an unknown virtual host", "", "", "none", status.NotFound, `there is no virtual host "none"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := open(t, rabbitmq.Options{Addrs: []string{addr}, VHost: tt.vhost, Username: tt.user, Password: tt.password})
			_, dialling := tr.Dial(t.Context(), "anybody")
			_, listening := tr.Listen(t.Context(), "")
			for what, err := range map[string]error{"Dial": dialling, "Listen": listening} {
				if !errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), password) {
					t.Errorf("%s gave %v, want %v and %q", what, err, tt.code, tt.text)
				}
			}
			if !transport.NotSent(dialling) {
				t.Errorf("Dial gave %v, want ErrNotSent", dialling)
			}
		})
	}
}

// TestTLS: by a user who may do what the documentation tells to allow, and no more.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	dir := t.TempDir()
	definitions, login := filepath.Join(dir, "definitions.json"), filepath.Join(dir, "login")
	must(t, os.WriteFile(login, []byte("narrow:"+password), 0o600))
	must(t, os.WriteFile(definitions, []byte(`{"users": [{"name":"narrow","password":"`+password+`","tags":""}], "vhosts": [{"name":"/"}],
		"permissions": [{"user":"narrow","vhost":"/","configure":"^micro","write":"^(micro|amq\\.default)","read":"^(micro|amq\\.rabbitmq\\.reply-to)"}]}`), 0o600))
	s := servers.Own(t, "listeners.tcp = none", "listeners.ssl.1 = ADDR", "ssl_options.cacertfile = "+ca, "ssl_options.certfile = "+cert, "ssl_options.keyfile = "+key, "load_definitions = "+definitions)
	tr, err := transport.Openers{"rabbitmq": rabbitmq.Open}.Open(t.Context(), "rabbitmq://"+s.Addr+"?ca-file="+ca+"&credentials-file="+login)
	must(t, err)
	both := tr.(*rabbitmq.Transport)
	defer both.Close()
	c, end := pair(t, both, both)
	must(t, c.Send(t.Context(), &transport.Message{Kind: transport.Call, ID: 1, Body: []byte("x")}))
	if m, err := recv(t, end); err != nil || string(m.Body) != "x" {
		t.Errorf("%q, %v", m.Body, err)
	}
	if _, err := open(t, rabbitmq.Options{Addrs: []string{s.Addr}}).Dial(t.Context(), "x"); !transport.NotSent(err) {
		t.Errorf("without TLS Dial gave %v", err)
	}
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	for _, name := range []string{rabbitmq.EnvUsername, rabbitmq.EnvPassword} {
		t.Setenv(name, "")
	}
	file := filepath.Join(t.TempDir(), "login")
	must(t, os.WriteFile(file, []byte("svc:a:b c\n"), 0o600))
	for _, tt := range []struct{ raw, err string }{
		{"rabbitmq", ""},
		{"amqp://h,i:1/some/vhost?tls=true&credentials-file=" + file, ""},
		{"rabbitmq://svc:s3cret@h:1", "credentials do not belong in a URL"},
		{"rabbitmq://h:0", `address "h:0"`},
		{"rabbitmq://h?tries=1", `unknown parameter "tries", rabbitmq takes: credentials-file, tls, ca-file, cert-file, key-file`},
		{"rabbitmq://h?ca-file=" + file, "holds no certificate"},
	} {
		tr, err := transport.Openers{"rabbitmq": rabbitmq.Open, "amqp": rabbitmq.Open}.Open(t.Context(), tt.raw)
		if err == nil {
			must(t, tr.(io.Closer).Close())
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.raw, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s gave %v, want %q", tt.raw, err, tt.err)
		case err != nil && strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%s tells the password: %v", tt.raw, err)
		}
	}
	t.Setenv(rabbitmq.EnvUsername, "svc")
	if _, err := rabbitmq.Open(t.Context(), &url.URL{Scheme: "rabbitmq"}); err == nil || !strings.Contains(err.Error(), "is set without the other") {
		t.Errorf("a user without a password gave %v", err)
	}
	if _, err := rabbitmq.New(rabbitmq.Options{MaxMessage: -1}); err == nil {
		t.Error("a negative limit is taken")
	}
}

// Addresses that are none, and a Transport that is closed.
func TestAddresses(t *testing.T) {
	t.Parallel()
	tr := open(t, rabbitmq.Options{Addrs: []string{servers.Addr(t)}})
	for _, addr := range []string{"", "amq.x", strings.Repeat("x", 201)} {
		if _, err := tr.Dial(t.Context(), addr); !transport.NotSent(err) {
			t.Errorf("Dial of %q gave %v", addr, err)
		}
		if l, err := tr.Listen(t.Context(), addr); (err == nil) != (addr == "") {
			t.Errorf("Listen on %q gave %v", addr, err)
		} else if err == nil {
			must(t, l.Close())
		}
	}
	other := open(t, rabbitmq.Options{Addrs: []string{servers.Addr(t)}})
	l, err := tr.Listen(t.Context(), "micro.test.taken")
	must(t, err)
	if _, err := other.Listen(t.Context(), l.Addr()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Listen on another's address gave %v", err)
	}
	c, err := other.Dial(t.Context(), l.Addr())
	must(t, err)
	must(t, tr.Close())
	must(t, tr.Close())
	if _, err := recv(t, c); !errors.Is(err, io.EOF) {
		t.Errorf("the peer of a Transport that was closed got %v, want EOF", err)
	}
	if _, err := tr.Listen(t.Context(), ""); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Listen after Close gave %v", err)
	}
	if _, err := tr.Dial(t.Context(), "x"); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Dial after Close gave %v", err)
	}
}
