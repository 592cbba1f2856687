package multi_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/micro"
)

type hello struct {
	Name string `json:"name"`
}

// roles are what other processes of TestServiceOnLAN do.
func roles() map[string]func() error {
	return map[string]func() error{"serve": serveLAN, "call": callLAN}
}

func newLAN(name string) (*micro.Service, error) {
	u := &url.URL{Scheme: "default", RawQuery: "scope=lan"}
	r, err := micro.DefaultRegistry(context.Background(), u)
	if err != nil {
		return nil, err
	}
	return micro.New(name, micro.Registry(r))
}

func serveLAN() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := newLAN("greeter")
	if err != nil {
		return err
	}
	err = micro.Handle(s, "Say.Hello", func(_ context.Context, in *hello) (*hello, error) {
		return &hello{Name: "Hello " + in.Name}, nil
	})
	if err != nil {
		return err
	}
	go func() {
		for s.Node().Address == "" && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		fmt.Println(s.Node().Address)
		_, _ = os.Stdin.Read(make([]byte, 1))
		stop()
	}()
	return s.Run(ctx)
}

func callLAN() error {
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	s, err := newLAN("caller")
	if err != nil {
		return err
	}
	for {
		var out hello
		err := s.Client().Call(ctx, "greeter", "Say.Hello", &hello{Name: "Ann"}, &out)
		if err == nil {
			fmt.Println(out.Name)
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond) // it is not there yet
	}
}

// TestServiceOnLAN runs a service of the default registry in one network namespace, and calls it from another on the
// same link.
func TestServiceOnLAN(t *testing.T) {
	t.Parallel()
	a, b := link(t)
	t.Logf("namespaces %s and %s", a, b)
	in := func(ns, role string) string {
		_, line := process(t, "MULTI_TEST_ROLE="+role, "ip", "netns", "exec", ns, "env", "XDG_RUNTIME_DIR="+t.TempDir())
		return line
	}
	if host, _, err := net.SplitHostPort(in(a, "serve")); err != nil || host != "10.79.0.1" {
		t.Errorf("the service listens on %q, %v", host, err)
	}
	if got := in(b, "call"); got != "Hello Ann" {
		t.Errorf("the call gave %q", got)
	}
}

// link makes two namespaces joined by a cable: 10.79.0.1 and 10.79.0.2.
func link(t *testing.T) (a, b string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: network namespaces need root, so a service on a LAN is not tested here")
	}
	id := rand.Uint32()
	a, b = fmt.Sprintf("multi%08xa", id), fmt.Sprintf("multi%08xb", id)
	for _, ns := range []string{a, b} {
		ip(t, "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		ip(t, "-n", ns, "link", "set", "lo", "up")
	}
	ip(t, "-n", a, "link", "add", "name", "lan", "type", "veth", "peer", "name", "lan", "netns", b)
	for i, ns := range []string{a, b} {
		ip(t, "-n", ns, "addr", "add", fmt.Sprintf("10.79.0.%d/24", i+1), "dev", "lan")
		ip(t, "-n", ns, "link", "set", "lan", "up")
	}
	return a, b
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}
