package rabbitmq_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/rabbitmq"
)

type note struct {
	Text string `json:"text"`
}

// serve runs a service until stop, with an endpoint of each kind.
func serve(t *testing.T, opts ...micro.Option) (svc *micro.Service, stop func() error) {
	t.Helper()
	ready := make(chan struct{})
	opts = append(opts, micro.Signals(false), micro.Grace(0), micro.AfterStart(func(context.Context) error { close(ready); return nil }))
	svc, err := micro.New("notes", opts...)
	must(t, err)
	must(t, micro.Handle(svc, "Notes.Echo", func(_ context.Context, n *note) (*note, error) { return n, nil }))
	must(t, micro.Handle(svc, "Notes.Wait", func(ctx context.Context, n *note) (*note, error) { <-ctx.Done(); return nil, ctx.Err() }))
	must(t, micro.HandleBidi(svc, "Notes.Chat", func(_ context.Context, s *micro.Stream[note, note]) error {
		for {
			n, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = s.Send(n)
			}
			if err != nil {
				return err
			}
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return svc, stop
}

// TestByURL: a service that takes its transport from the environment is called by another program, by calls and streams, and by the
// command, of the same URL.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(micro.EnvTransport, "rabbitmq://"+servers.Addr(t))
	t.Setenv(micro.EnvRegistry, "local://?dir="+t.TempDir())
	drivers := micro.Drivers{Registries: registry.Openers{"local": local.Open}, Transports: transport.Openers{"rabbitmq": rabbitmq.Open}}
	svc, stop := serve(t, micro.FromEnv(drivers))
	if n := svc.Node(); n.Metadata[registry.MetaTransport] != "rabbitmq" || !strings.HasPrefix(n.Address, "micro.rpc.") {
		t.Errorf("the node is %+v", n)
	}
	caller, err := micro.New("caller", micro.FromEnv(drivers))
	must(t, err)
	defer caller.Close()
	call(t, caller.Client(), "hello")
	chat(t, caller.Client(), 200)
	if out := tryout.Command(t, "call", "notes", "Notes.Echo", "text=hi", "-q", ".text"); out != "hi\n" {
		t.Errorf("micro call printed %q", out)
	}
	if out := tryout.Command(t, "health", "notes"); !strings.Contains(out, "ok") {
		t.Errorf("micro health printed %q", out)
	}
	must(t, stop())

	t.Setenv(micro.EnvTransport, "rabbitmq://"+testserver.FreeAddr())
	reg, err := drivers.Registries.Open(t.Context(), os.Getenv(micro.EnvRegistry))
	must(t, err)
	defer reg.Close()
	_, stop = serve(t, micro.Registry(reg), micro.Transport(open(t, rabbitmq.Options{Addrs: []string{servers.Addr(t)}})))
	if out := tryout.Command(t, "call", "notes", "Notes.Echo", "text=hi"); !strings.Contains(out, "error: ") || !strings.Contains(out, "connection refused") {
		t.Errorf("without RabbitMQ micro call printed %q", out)
	}
	must(t, stop())
}

// call makes a call and checks its answer.
func call(t *testing.T, c *client.Client, text string, opts ...client.CallOption) {
	t.Helper()
	got, err := client.Call[note](t.Context(), c, "notes", "Notes.Echo", &note{Text: text}, opts...)
	if err != nil || got.Text != text {
		t.Errorf("the call gave %+v, %v", got, err)
	}
}

// chat sends n messages through a stream, and reads them back.
func chat(t *testing.T, c *client.Client, n int) {
	t.Helper()
	s, err := c.Stream(t.Context(), "notes", "Notes.Chat")
	must(t, err)
	defer s.Close()
	big := strings.Repeat("x", 20_000) // more in all than the windows hold
	var sending sync.WaitGroup
	sending.Go(func() {
		for range n {
			if err := s.Send(&note{Text: big}); err != nil {
				t.Errorf("Send: %v", err)
				return
			}
		}
		_ = s.CloseSend()
	})
	for range n {
		var got note
		if err := s.Recv(&got); err != nil || got.Text != big {
			t.Fatalf("Recv: %v", err)
		}
	}
	if err := s.Recv(new(note)); !errors.Is(err, io.EOF) {
		t.Errorf("at its end the stream gave %v", err)
	}
	sending.Wait()
}

// RabbitMQ is killed and started again under a service that runs: calls under way fail, and it can be called again, at the same
// address, as soon as RabbitMQ is back.
func TestServerRestartedUnderService(t *testing.T) {
	t.Parallel()
	s, reg := servers.Own(t), memory.New()
	o := rabbitmq.Options{Addrs: []string{s.Addr}}
	svc, _ := serve(t, micro.Registry(reg), micro.Transport(open(t, o)))
	address := svc.Node().Address
	c, err := client.New(client.WithTransport(open(t, o)), client.WithRegistry(reg))
	must(t, err)
	defer c.Close()
	call(t, c, "before")
	for _, signal := range []string{"KILL", "TERM"} {
		failed := make(chan error, 1)
		go func() {
			_, err := client.Call[note](t.Context(), c, "notes", "Notes.Wait", &note{}, client.Timeout(wait))
			failed <- err
		}()
		stream, err := c.Stream(t.Context(), "notes", "Notes.Chat")
		must(t, err)
		must(t, stream.Send(&note{Text: "x"}))
		must(t, stream.Recv(new(note)))
		s.Stop(signal)
		begun := time.Now()
		if err := stream.Recv(new(note)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("without RabbitMQ a stream gave %v, want an error", err)
		}
		_ = stream.Close()
		if err := <-failed; err == nil {
			t.Error("a call lived on without RabbitMQ")
		}
		if _, err := client.Call[note](t.Context(), c, "notes", "Notes.Echo", &note{}); err == nil || !strings.Contains(err.Error(), "rabbitmq "+s.Addr+" is not answering: connection refused") {
			t.Errorf("without RabbitMQ a call gave %v", err)
		}
		if took := time.Since(begun); took > wait/2 {
			t.Errorf("that took %v", took)
		}
		s.MustStart(t)
		eventually(t, "it can be called again", func() bool {
			got, err := client.Call[note](t.Context(), c, "notes", "Notes.Echo", &note{Text: "after"}, client.Timeout(time.Second))
			return err == nil && got.Text == "after"
		})
		call(t, c, "at its address", client.Address(address))
		chat(t, c, 20)
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

func TestAddressByName(t *testing.T) { // not parallel: it sets the environment
	tryout.AddressByName(t, "rabbitmq://"+servers.Addr(t))
}
