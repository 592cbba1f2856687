package micro_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

// childEnv set makes the test binary a service, in a process of its own.
const childEnv = "MICRO_TEST_CHILD"

// child runs a service that the environment configures. It prints its address when it serves.
func child() int {
	reg := memory.New()
	var s *micro.Service
	announce := micro.AfterStart(func(context.Context) error {
		_, err := fmt.Println(s.Node().Address)
		return err
	})
	s, err := micro.New("greeter", micro.Registry(reg), announce, micro.FromEnv(micro.Drivers{}))
	if err == nil {
		_ = micro.Handle(s, "Say.Hello", hello)
		err = s.Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is a service in a process of its own.
type process struct {
	*exec.Cmd
	address string
}

// startProcess runs a child, which is killed at the end of the test, and gives it when it serves.
func startProcess(t *testing.T, files []*os.File, env ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0])}
	p.Env = append(append(os.Environ(), childEnv+"=1"), env...)
	p.ExtraFiles, p.Stderr = files, os.Stderr
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the process did not start: %v", err)
	}
	p.address = strings.TrimSpace(line)
	return p
}

// TestInheritedListener: a service takes the socket that its parent opened.
func TestInheritedListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Skipf("no descriptors of sockets here: %v", err)
	}
	defer func() { _ = f.Close() }()
	p := startProcess(t, []*os.File{f}, micro.EnvListenFD+"=3", micro.EnvService+"=renamed", micro.EnvNode+"=node-7")
	if p.address != l.Addr().String() {
		t.Errorf("it serves %s, and was given %s", p.address, l.Addr())
	}
	_ = l.Close() // the child has its own
	c := newCaller(t, newRegistry(t)).Client()
	rsp, err := client.Call[Greeting](t.Context(), c, "renamed", "Say.Hello", &Hello{Name: "x"}, client.Address(p.address))
	if err != nil || rsp.Msg != "Hello x" {
		t.Fatalf("%v %v", rsp, err)
	}
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}

// TestFault_P1_KillOne: of three nodes one is killed under load, and no idempotent call fails.
func TestFault_P1_KillOne(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	var nodes []*process
	for i := range 3 {
		p := startProcess(t, nil)
		nodes = append(nodes, p)
		n := registry.Node{ID: fmt.Sprintf("greeter-%d", i), Service: "greeter", Address: p.address,
			Metadata: map[string]string{registry.MetaIdempotent: "Say.Hello"}}
		if err := reg.Register(t.Context(), n, 0); err != nil {
			t.Fatal(err)
		}
	}
	l := startLoad(t, newCaller(t, reg).Client(), 300)
	l.await(300)
	if err := nodes[1].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	l.await(900)
	l.stop(0)
}

// TestFault_P4_RollingRestart: three nodes are replaced one after another under load, and no call fails.
func TestFault_P4_RollingRestart(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	start := func() func() error {
		s, up := newService(t, reg, micro.Grace(micro.DefaultGrace))
		_ = micro.Handle(s, "Say.Hello", func(ctx context.Context, in *Hello) (*Greeting, error) {
			work := time.NewTimer(5 * time.Millisecond)
			defer work.Stop()
			select {
			case <-work.C:
				return hello(ctx, in)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		stop := run(t, s)
		<-up
		return stop
	}
	stops := []func() error{start(), start(), start()}
	l := startLoad(t, newCaller(t, reg).Client(), 500)
	l.await(300)
	for i, stop := range stops {
		if err := stop(); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
		start()
		l.await(600)
	}
	l.stop(0)
}

// load calls Say.Hello at a steady rate, whether the calls return or not.
type load struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	calls  chan error
	count  int
	errs   []error
}

func startLoad(t *testing.T, c *client.Client, perSecond int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, cancel: cancel, done: make(chan struct{}), calls: make(chan error, 100_000)}
	t.Cleanup(cancel)
	go func() {
		defer close(l.done)
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		pending := make(chan struct{}, 10_000)
		for n := 0; ctx.Err() == nil; n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				continue
			}
			pending <- struct{}{}
			go func() {
				defer func() { <-pending }()
				name := fmt.Sprint(n)
				rsp, err := client.Call[Greeting](context.Background(), c, "greeter", "Say.Hello", &Hello{Name: name})
				if err == nil && rsp.Msg != "Hello "+name {
					err = fmt.Errorf("call %s was answered with %q", name, rsp.Msg)
				}
				l.calls <- err
			}()
		}
		for range cap(pending) {
			pending <- struct{}{}
		}
	}()
	return l
}

// await waits until n more calls have returned.
func (l *load) await(n int) {
	l.t.Helper()
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	for range n {
		select {
		case err := <-l.calls:
			l.note(err)
		case <-patience.C:
			l.t.Fatalf("after 30 s %d calls have returned", l.count)
		}
	}
}

func (l *load) note(err error) {
	l.count++
	if err != nil {
		l.errs = append(l.errs, err)
	}
}

// stop ends the load and tells whether more calls failed than may.
func (l *load) stop(may int) {
	l.t.Helper()
	l.cancel()
	<-l.done
	close(l.calls)
	for err := range l.calls {
		l.note(err)
	}
	if len(l.errs) > may {
		l.t.Errorf("%d of %d calls failed, the first: %v", len(l.errs), l.count, l.errs[0])
	}
}
