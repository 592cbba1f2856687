package micro_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
	case heapChildren:
		os.Exit(heapChild())
	default:
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

type Hello struct {
	Name string `json:"name"`
}

type Greeting struct {
	Msg string `json:"msg"`
}

func hello(_ context.Context, in *Hello) (*Greeting, error) {
	return &Greeting{Msg: "Hello " + in.Name}, nil
}

func newRegistry(t *testing.T) registry.Registry {
	r := memory.New()
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// runner is what Service and Function have in common.
type runner interface{ Run(context.Context) error }

// run runs a service until stop is called, and gives what Run returned.
func run(t *testing.T, s runner) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var err error
	go func() { defer close(done); err = s.Run(ctx) }()
	stop = func() error { cancel(); <-done; return err }
	t.Cleanup(func() { _ = stop() })
	return stop
}

// started gives options whose channel is closed when the service is listed.
func started() (<-chan struct{}, micro.Option) {
	c := make(chan struct{})
	return c, micro.AfterStart(func(context.Context) error { close(c); return nil })
}

func newService(t *testing.T, reg registry.Registry, opts ...micro.Option) (*micro.Service, <-chan struct{}) {
	t.Helper()
	up, opt := started()
	s, err := micro.New("greeter", append([]micro.Option{micro.Registry(reg), micro.Signals(false), micro.Grace(0), opt}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, up
}

func newCaller(t *testing.T, reg registry.Registry) *micro.Service {
	t.Helper()
	s, err := micro.New("caller", micro.Registry(reg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestServiceIsFoundAndCalled(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	s, up := newService(t, reg, micro.Version("1.2.0"), micro.Metadata("zone", "a"))
	_ = micro.Handle(s, "Say.Hello", hello, server.Idempotent())
	stop := run(t, s)
	<-up
	nodes, err := reg.Get(t.Context(), "greeter")
	if err != nil || len(nodes) != 1 {
		t.Fatalf("%v %v", nodes, err)
	}
	n := nodes[0]
	if n.Version != "1.2.0" || n.Metadata["zone"] != "a" || n.Metadata[registry.MetaIdempotent] != "Say.Hello" ||
		len(n.Endpoints) != 1 || !strings.HasPrefix(n.Address, "127.0.0.1:") || n.ID != s.Node().ID {
		t.Errorf("node %+v", n)
	}
	rsp, err := client.Call[Greeting](t.Context(), newCaller(t, reg).Client(), "greeter", "Say.Hello", &Hello{Name: "x"})
	if err != nil || rsp.Msg != "Hello x" {
		t.Errorf("%v %v", rsp, err)
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if nodes, err := reg.Get(t.Context(), "greeter"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("still listed: %v %v", nodes, err)
	}
}

func TestHandleInto(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	s, up := newService(t, reg)
	_ = micro.HandleInto(s, "Say.Hello", func(_ context.Context, in *Hello, out *Greeting) error {
		if out.Msg != "" {
			t.Errorf("the answer was not empty: %q", out.Msg)
		}
		if in.Name == "" {
			return status.New(status.InvalidArgument, "no name")
		}
		out.Msg = "Hello " + in.Name
		return nil
	}, server.Pooled(), server.Inline())
	run(t, s)
	<-up
	c := newCaller(t, reg).Client()
	for _, name := range []string{"x", "", "y"} {
		rsp, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{Name: name})
		if name == "" && status.CodeOf(err) != status.InvalidArgument || name != "" && (err != nil || rsp.Msg != "Hello "+name) {
			t.Errorf("%q: %v %v", name, rsp, err)
		}
	}
}

func TestLife(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	var mu sync.Mutex
	var order []string
	mark := func(name string, err error) micro.Hook {
		return func(ctx context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if nodes, _ := reg.Get(context.WithoutCancel(ctx), "greeter"); len(nodes) > 0 { // ctx may end meanwhile
				name += " listed"
			}
			order = append(order, name)
			return err
		}
	}
	stopErr := errors.New("stop failed")
	s, up := newService(t, reg, micro.BeforeStart(mark("before start", nil)), micro.AfterStart(mark("after start", nil)),
		micro.BeforeStop(mark("before stop", stopErr)), micro.BeforeStop(mark("before stop 2", nil)), micro.AfterStop(mark("after stop", nil)))
	stop := run(t, s)
	<-up
	if err := stop(); !errors.Is(err, stopErr) {
		t.Errorf("Run: %v", err)
	}
	want := []string{"before start", "after start listed", "before stop listed", "before stop 2 listed", "after stop"}
	if !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("it runs twice")
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	hookErr := errors.New("no database")
	for name, tt := range map[string]struct {
		opt  micro.Option
		want string
	}{
		"hook":       {micro.BeforeStart(func(context.Context) error { return hookErr }), "no database"},
		"late hook":  {micro.AfterStart(func(context.Context) error { return hookErr }), "no database"},
		"address":    {micro.Address(l.Addr().String()), "in use"},
		"advertised": {micro.Advertise("nonsense address"), "address"},
		"endpoint":   {micro.BeforeStart(func(context.Context) error { return nil }), "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t)
			s, _ := newService(t, reg, tt.opt)
			if name == "endpoint" {
				_ = micro.Handle(s, "Say.Hello", hello)
				_ = micro.Handle(s, "Say.Hello", hello)
				if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Run: %v", err)
				}
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := s.Run(ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run: %v, want %q", err, tt.want)
			}
			if nodes, _ := reg.List(t.Context()); len(nodes) > 0 {
				t.Errorf("left behind: %v", nodes)
			}
		})
	}
}

func TestHealthCheck(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	var sick atomic.Bool
	s, up := newService(t, reg, micro.RegisterInterval(5*time.Millisecond), micro.RegisterTTL(time.Minute),
		micro.HealthCheck(func(context.Context) error {
			if sick.Load() {
				return errors.New("disk full")
			}
			return nil
		}))
	run(t, s)
	<-up
	addr := s.Node().Address
	c := newCaller(t, reg).Client()
	for _, want := range []bool{true, false, true} {
		sick.Store(!want)
		for nodes := range reg.Watch(t.Context(), "greeter") {
			if (len(nodes) == 1) == want {
				break
			}
		}
		h, err := client.Call[server.Health](t.Context(), c, "greeter", "Debug.Health", nil, client.Address(addr))
		if err != nil || (h.Status == server.HealthOK) != want {
			t.Errorf("health %+v %v, want ok %v", h, err, want)
		}
	}
}

// TestStopHooksOfTheUnlisted: a service that is off the list because its health check fails has started, and its stop
// hooks run.
func TestStopHooksOfTheUnlisted(t *testing.T) {
	t.Parallel()
	var stops []string
	mark := func(name string) micro.Hook {
		return func(context.Context) error { stops = append(stops, name); return nil }
	}
	s, up := newService(t, newRegistry(t), micro.HealthCheck(func(context.Context) error { return errors.New("disk full") }),
		micro.BeforeStop(mark("before stop")), micro.AfterStop(mark("after stop")))
	stop := run(t, s)
	<-up
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if !slices.Equal(stops, []string{"before stop", "after stop"}) {
		t.Errorf("hooks %q", stops)
	}
}

// TestTwoNodesOfOneID: the second is told, and the first stays on the list.
func TestTwoNodesOfOneID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() registry.Registry {
		r, err := local.New(local.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	reg := open()
	first, up := newService(t, reg, micro.NodeID("greeter-1"))
	run(t, first)
	<-up
	second, _ := newService(t, open(), micro.NodeID("greeter-1"))
	if err := second.Run(t.Context()); !errors.Is(err, registry.ErrConflict) || !strings.Contains(err.Error(), "greeter-1") {
		t.Errorf("Run of the second: %v", err)
	}
	nodes, err := reg.Get(t.Context(), "greeter")
	if err != nil || len(nodes) != 1 || nodes[0].Address != first.Node().Address {
		t.Errorf("on the list: %v %v", nodes, err)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	got := make(chan string, 10)
	s, up := newService(t, reg)
	_ = micro.Subscribe(s, "user.created", func(_ context.Context, in *Hello) error {
		got <- in.Name
		return nil
	})
	run(t, s)
	<-up
	c := newCaller(t, reg).Client()
	report, err := c.Publish(t.Context(), "user.created", &Hello{Name: "x"})
	if err != nil || report.Delivered() != 1 || report.Err() != nil {
		t.Fatalf("%+v %v", report, err)
	}
	if name := <-got; name != "x" {
		t.Errorf("got %q", name)
	}
	nodes, _ := reg.Get(t.Context(), registry.BrokerService)
	if len(nodes) != 1 || nodes[0].Address != s.Node().Address || nodes[0].Metadata["frames"] != "true" {
		t.Errorf("the subscription is not on the service's own port, or takes no batches: %+v", nodes)
	}
	report, err = c.Publish(t.Context(), "user.created", map[string]int{"name": 3})
	if err != nil || report.Delivered() != 0 || status.CodeOf(report.Err()) != status.InvalidArgument {
		t.Errorf("a message that does not decode: %+v %v", report, err)
	}
}

// TestDrain: what is under way when a service stops is answered, also for callers that found it before.
func TestDrain(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	running, release := make(chan struct{}), make(chan struct{})
	s, up := newService(t, reg)
	_ = micro.Handle(s, "Say.Slow", func(ctx context.Context, _ *Hello) (*Greeting, error) {
		close(running)
		<-release
		return &Greeting{Msg: "whole"}, ctx.Err()
	})
	stop := run(t, s)
	<-up
	type result struct {
		rsp *Greeting
		err error
	}
	answers := make(chan result, 1)
	c := newCaller(t, reg).Client()
	go func() {
		rsp, err := client.Call[Greeting](context.Background(), c, "greeter", "Say.Slow", &Hello{})
		answers <- result{rsp, err}
	}()
	<-running
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for nodes := range reg.Watch(t.Context(), "greeter") {
		if len(nodes) == 0 {
			break
		}
	}
	close(release)
	if a := <-answers; a.err != nil || a.rsp.Msg != "whole" {
		t.Errorf("the call under way: %v %v", a.rsp, a.err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestFunction(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	release := make(chan struct{})
	running := make(chan struct{})
	up, opt := started()
	f, err := micro.NewFunction("once", micro.Registry(reg), micro.Signals(false), micro.Grace(0), opt)
	if err != nil {
		t.Fatal(err)
	}
	_ = micro.Handle(f.Service, "Say.Hello", func(ctx context.Context, in *Hello) (*Greeting, error) {
		close(running)
		<-release
		return hello(ctx, in)
	})
	done := make(chan error, 1)
	go func() { done <- f.Run(context.Background()) }()
	<-up
	c := newCaller(t, reg).Client()
	if _, err := client.Call[server.Info](t.Context(), c, "once", "Debug.Info", nil); err != nil {
		t.Fatal(err)
	}
	first := make(chan error, 1)
	go func() {
		rsp, err := client.Call[Greeting](context.Background(), c, "once", "Say.Hello", &Hello{Name: "x"})
		if err == nil && rsp.Msg != "Hello x" {
			err = errors.New(rsp.Msg)
		}
		first <- err
	}()
	<-running
	_, err = client.Call[Greeting](t.Context(), c, "once", "Say.Hello", &Hello{Name: "y"})
	if !status.IsRefused(err) {
		t.Errorf("the second call: %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("the one call: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestFunctionServesAMessage(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	up, opt := started()
	f, err := micro.NewFunction("once", micro.Registry(reg), micro.Signals(false), micro.Grace(0), opt)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	_ = micro.Subscribe(f.Service, "topic", func(_ context.Context, in *Hello) error { got <- in.Name; return nil })
	done := make(chan error, 1)
	go func() { done <- f.Run(context.Background()) }()
	<-up
	report, err := newCaller(t, reg).Client().Publish(t.Context(), "topic", &Hello{Name: "x"})
	if err != nil || report.Delivered() != 1 || <-got != "x" {
		t.Errorf("%+v %v", report, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	for name, opts := range map[string][]micro.Option{
		"name":         {micro.Registry(reg), nil},
		"interval":     {micro.Registry(reg), micro.RegisterInterval(time.Hour)},
		"own label":    {micro.Registry(reg), micro.Metadata("started", "yesterday")},
		"LAN of other": {micro.Registry(reg), micro.LAN()},
		"server":       {micro.Registry(reg), micro.ServerOptions(server.MaxCalls(0))},
		"client":       {micro.Registry(reg), micro.ClientOptions(client.WithTimeout(0))},
	} {
		service := "greeter"
		if name == "name" {
			service, opts = "not a name", opts[:1]
		}
		if s, err := micro.New(service, opts...); err == nil {
			t.Errorf("%s is not refused", name)
			_ = s.Close()
		}
	}
}

func TestFromEnv(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv(micro.EnvService, "renamed")
	t.Setenv(micro.EnvVersion, "9")
	t.Setenv(micro.EnvRegistry, "shelf://?")
	reg := newRegistry(t)
	drivers := micro.Drivers{Registries: registry.Openers{"shelf": openShared(reg)}}
	up, opt := started()
	s, err := micro.New("original", micro.FromEnv(drivers), micro.Signals(false), micro.Grace(0), opt)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	<-up
	nodes, err := reg.Get(t.Context(), "renamed")
	if err != nil || nodes[0].Version != "9" {
		t.Errorf("%v %v", nodes, err)
	}
	t.Setenv(micro.EnvRegistry, "nowhere://")
	if s, err := micro.New("original", micro.FromEnv(drivers)); err == nil || !strings.Contains(err.Error(), "shelf") {
		t.Errorf("unknown scheme: %v %v", s, err)
	}
	t.Setenv(micro.EnvRegistry, "")
	t.Setenv(micro.EnvListenFD, "one")
	if _, err := micro.New("original", micro.Registry(reg), micro.FromEnv(drivers)); err == nil || !strings.Contains(err.Error(), micro.EnvListenFD) {
		t.Errorf("no descriptor: %v", err)
	}
}
