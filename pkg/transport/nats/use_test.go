package nats_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	registrynats "github.com/cb02dfca/micro/pkg/registry/nats"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/nats"
)

type note struct {
	Text string `json:"text"`
}

// serve runs a service with a call and streams until stop, or the end of the test.
func serve(t *testing.T, opts ...micro.Option) (stop func()) {
	t.Helper()
	ready := make(chan struct{})
	svc, err := micro.New("notes", append([]micro.Option{micro.Signals(false), micro.Grace(0), micro.AfterStart(func(context.Context) error { close(ready); return nil })}, opts...)...)
	must(t, err)
	must(t, micro.Handle(svc, "Notes.Echo", func(_ context.Context, n *note) (*note, error) { return n, nil }))
	must(t, micro.HandleBidi(svc, "Notes.Chat", func(_ context.Context, st *micro.Stream[note, note]) error {
		for {
			n, err := st.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := st.Send(n); err != nil {
				return err
			}
		}
	}))
	must(t, micro.HandleServerStream(svc, "Notes.Count", func(_ context.Context, _ *note, out *micro.Sender[note]) error {
		for i := range 3 {
			if err := out.Send(&note{Text: fmt.Sprint(i)}); err != nil {
				return err
			}
		}
		return nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if cancel(); !stopped {
			stopped = true
			must(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}

// chat sends some messages over a stream and reads them back.
func chat(t *testing.T, c *client.Client, size int) {
	t.Helper()
	st, err := c.Stream(t.Context(), "notes", "Notes.Chat")
	must(t, err)
	defer st.Close()
	text := strings.Repeat("x", size)
	go func() {
		for i := range 20 {
			if st.Send(&note{Text: fmt.Sprint(i, text)}) != nil {
				return // the reader sees it
			}
		}
		_ = st.CloseSend()
	}()
	for i := range 20 {
		var n note
		must(t, st.Recv(&n))
		if n.Text != fmt.Sprint(i, text) {
			t.Fatalf("message %d of the stream has %d bytes, begins with %.10q", i, len(n.Text), n.Text)
		}
	}
	if err := st.Recv(new(note)); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v", err)
	}
}

// TestByURL: a service that takes its registry and its transport from the environment is called, and streamed with, by another program, and by
// the command, of the same URLs. Nobody listens on a port.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	addr := shared.Addr(t)
	t.Setenv(micro.EnvRegistry, "nats://"+addr+"?prefix=test."+strings.TrimPrefix(natsgo.NewInbox(), natsgo.InboxPrefix))
	t.Setenv(micro.EnvTransport, "nats://"+addr)
	drivers := micro.Drivers{Registries: registry.Openers{"nats": registrynats.Open}, Transports: transport.Openers{"nats": nats.Open}}
	stop := serve(t, micro.FromEnv(drivers))
	caller, err := micro.New("caller", micro.FromEnv(drivers))
	must(t, err)
	defer caller.Close()
	for _, size := range []int{1, 3 << 20} {
		text := strings.Repeat("y", size)
		if got, err := client.Call[note](t.Context(), caller.Client(), "notes", "Notes.Echo", &note{Text: text}); err != nil || got.Text != text {
			t.Errorf("the call of %d bytes gave %v", size, err)
		}
	}
	chat(t, caller.Client(), 10)
	chat(t, caller.Client(), 200_000)
	if out := tryout.Command(t, "call", "notes", "Notes.Echo", "text=hi", "-q", ".text"); out != "hi\n" {
		t.Errorf("micro call printed %q", out)
	}
	if out := tryout.Command(t, "stream", "notes", "Notes.Count", "-d", "{}", "-q", ".text"); out != "0\n1\n2\n" {
		t.Errorf("micro stream printed %q", out)
	}
	if out := tryout.Command(t, "list", "nodes", "-q", ".[].metadata.transport, .[].address"); !strings.HasPrefix(out, "nats\n_INBOX.") {
		t.Errorf("micro list nodes printed %q", out)
	}
	if out := tryout.Command(t, "health", "notes"); !strings.Contains(out, "ok") {
		t.Errorf("micro health printed %q", out)
	}
	stop()
	if out := tryout.Command(t, "call", "notes", "Notes.Echo", "text=hi", "--address", "_INBOX.none"); !strings.Contains(out, "nobody listens there") {
		t.Errorf("after its end micro call printed %q", out)
	}
	t.Setenv(micro.EnvTransport, "nats://"+testserver.FreeAddr())
	if out := tryout.Command(t, "call", "notes", "Notes.Echo", "text=hi", "--address", "_INBOX.none"); !strings.Contains(out, "is not answering: connection refused") {
		t.Errorf("without NATS micro call printed %q", out)
	}
}

// TestServerRestart: a NATS that is killed and started anew ends streams, and calls are answered again, by a service that was not touched.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	s := own(t)
	reg := memory.New()
	defer reg.Close()
	serve(t, micro.Registry(reg), micro.Transport(open(t, nats.Options{Servers: []string{s.Addr}})))
	c, err := client.New(client.WithRegistry(reg), client.WithTransport(open(t, nats.Options{Servers: []string{s.Addr}})))
	must(t, err)
	defer c.Close()
	call := func() error {
		_, err := client.Call[note](t.Context(), c, "notes", "Notes.Echo", &note{Text: "hi"})
		return err
	}
	must(t, call())
	for _, how := range []string{"KILL", "TERM"} {
		st, err := c.Stream(t.Context(), "notes", "Notes.Chat")
		must(t, err)
		must(t, st.Send(&note{Text: "x"}))
		must(t, st.Recv(new(note)))
		s.Stop(how)
		if err := st.Recv(new(note)); err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the stream ends with %v", err)
		}
		_ = st.Close()
		if err := call(); err == nil {
			t.Error("a call without NATS is answered")
		}
		s.MustStart(t)
		eventually(t, "calls are answered again", func() bool { return call() == nil })
		chat(t, c, 1000)
	}
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// TestKilledNode: calls that would have gone to a process that was killed are answered by another, though nobody says that they may be sent
// twice; none fails.
func TestKilledNode(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	reg := memory.New()
	defer reg.Close()
	serve(t, micro.Registry(reg), micro.Transport(open(t, nats.Options{Servers: []string{addr}})))
	subject, kill := spawn(t, addr)
	must(t, reg.Register(t.Context(), registry.Node{ID: "mortal", Service: "notes", Address: subject}, 0)) // as it stays listed for a while
	c, err := client.New(client.WithRegistry(reg), client.WithTransport(open(t, nats.Options{Servers: []string{addr}})))
	must(t, err)
	defer c.Close()
	call := func(opts ...client.CallOption) error {
		_, err := client.Call[note](t.Context(), c, "notes", "Notes.Echo", &note{Text: "hi"}, opts...)
		return err
	}
	must(t, call(client.Node("mortal")))
	kill()
	for i := range 20 {
		if err := call(); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if err := call(client.Node("mortal")); !transport.NotSent(err) {
		t.Errorf("a call to the killed node alone gave %v, want ErrNotSent", err)
	}
}

func TestAddressByName(t *testing.T) { // not parallel: it sets the environment
	tryout.AddressByName(t, "nats://"+shared.Addr(t))
}
