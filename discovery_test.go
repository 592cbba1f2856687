//go:build linux

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cb02dfca/micro/internal/netspace"
)

const lanScope = "default?scope=lan"

// TestDiscovery runs the whole binary on machines of its own: network namespaces, with private folders.
func TestDiscovery(t *testing.T) {
	netspace.New(t) // or the test is skipped
	bin := filepath.Join(t.TempDir(), "micro")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name, test := range map[string]func(*testing.T, string){
		"two machines":               testTwoMachines,
		"nothing leaves the machine": testNothingLeaves,
		"only loopback, no route":    testOnlyLoopback,
		"killed":                     testKilled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, bin)
		})
	}
}

func testTwoMachines(t *testing.T, bin string) {
	a, b := bridged(t, bin)
	at := a.serve("--registry", lanScope)
	if host, _, _ := net.SplitHostPort(at.Address); host != "10.77.0.1" {
		t.Errorf("it is announced at %s, want the interface of the network, 10.77.0.1", at.Address)
	}
	// That a packet is lost on a bridge is no error, so what asks once is given a few tries.
	eventually(t, "the other machine lists it", func() bool {
		return b.micro("list", "services", "--registry", lanScope, "-o", "name") == "greeter\n"
	})
	eventually(t, "its own machine lists it", func() bool {
		return a.micro("list", "services", "--registry", lanScope, "-o", "name") == "greeter\n"
	})
	eventually(t, "the other machine calls it", func() bool {
		return strings.Contains(b.micro("call", "greeter", "Say.Hello", "name=x", "--registry", lanScope), "Hello x")
	})
	if out := b.micro("list", "services", "-o", "name"); out != "" {
		t.Errorf("a list of this machine alone shows %q", out)
	}
	at.kill()
	if out := b.micro("call", "greeter", "Say.Hello", "name=x", "--registry", lanScope); out != "" {
		t.Errorf("a killed service answered %q", out)
	}
}

func testNothingLeaves(t *testing.T, bin string) {
	a, b := bridged(t, bin)
	b.dir = a.dir // containers may share the folder, but not 127.0.0.1
	if err := a.IP("route add default via 10.77.0.2"); err != nil {
		t.Fatal(err)
	}
	ear := a.listen()
	served := a.serve()
	eventually(t, "its own machine lists it", func() bool { return a.micro("list", "services", "-o", "name") == "greeter\n" })
	if out := a.micro("call", "greeter", "Say.Hello", "name=x"); !strings.Contains(out, "Hello x") {
		t.Errorf("its own machine is answered %q", out)
	}
	for _, reg := range []string{"default", lanScope} {
		if out := b.micro("list", "services", "--registry", reg, "-o", "name"); out != "" {
			t.Errorf("the other machine sees %q with --registry %s", out, reg)
		}
	}
	served.kill()
	if sent := ear.sent(); len(sent) > 0 {
		t.Errorf("it sent to the network:\n%s", strings.Join(sent, "\n"))
	}
	a.serve("--registry", lanScope)
	eventually(t, "the ear hears what is sent to the network", func() bool { return len(ear.sent()) > 0 })
}

func testOnlyLoopback(t *testing.T, bin string) {
	h := newHost(t, bin)
	for _, reg := range []string{"default", "mdns", "local"} {
		at := h.serve("--registry", reg)
		eventually(t, reg+" lists it", func() bool { return h.micro("list", "services", "--registry", reg, "-o", "name") == "greeter\n" })
		if out := h.micro("call", "greeter", "Say.Hello", "name=x", "--registry", reg); !strings.Contains(out, "Hello x") {
			t.Errorf("%s: it is answered %q", reg, out)
		}
		at.interrupt()
		if out := h.micro("list", "services", "--registry", reg, "-o", "name"); out != "" {
			t.Errorf("%s: after it was stopped there is %q", reg, out)
		}
	}
}

// testKilled: mDNS alone forgets a killed node after half a minute; the files of this machine know better.
func testKilled(t *testing.T, bin string) {
	h := newHost(t, bin)
	watch := h.start("list", "nodes", "--watch", "-o", "jsonl")
	for round := range 2 {
		at := h.serve()
		if e := watch.event(); e.Event != "added" || e.Item.ID != at.Node {
			t.Fatalf("round %d: %+v, want that %s was added", round, e, at.Node)
		}
		at.kill()
		killed := time.Now()
		if e := watch.event(); e.Event != "removed" || e.Item.ID != at.Node {
			t.Fatalf("round %d: %+v, want that %s was removed", round, e, at.Node)
		}
		if gone := time.Since(killed); gone > 5*time.Second { // 50 ms on a quiet machine; mDNS takes 30 s
			t.Errorf("round %d: it went after %v", round, gone)
		}
		if out := h.micro("list", "services", "-o", "name"); out != "" {
			t.Errorf("round %d: a new process still sees %q", round, out)
		}
	}
}

// eventually waits until a thing is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// host is a machine with a folder.
type host struct {
	*netspace.Machine
	t   *testing.T
	bin string
	dir string
}

// newHost makes a machine with loopback alone.
func newHost(t *testing.T, bin string) *host {
	t.Helper()
	return &host{Machine: netspace.New(t), t: t, bin: bin, dir: t.TempDir()}
}

// bridged makes two machines on one link: 10.77.0.1 and 10.77.0.2, interface "lan" of each.
func bridged(t *testing.T, bin string) (a, b *host) {
	t.Helper()
	lan := netspace.NewLAN(t, 2)
	return &host{Machine: lan.Machines[0], t: t, bin: bin, dir: t.TempDir()}, &host{Machine: lan.Machines[1], t: t, bin: bin, dir: t.TempDir()}
}

// inside runs f in the machine's network: sockets that it opens, and processes that it starts, stay there.
func (h *host) inside(f func() error) {
	h.t.Helper()
	if err := h.Do(f); err != nil {
		h.t.Fatal(err)
	}
}

// command prepares the binary, in the machine's folder and an environment that says nothing else.
func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.bin, args...)
	cmd.Dir = h.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test itself be killed
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "XDG_RUNTIME_DIR=" + h.dir, "TMPDIR=" + h.dir}
	return cmd
}

// micro runs the binary to its end, and gives its standard output. What went wrong is logged.
func (h *host) micro(args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	cmd := h.command(ctx, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	h.inside(cmd.Start)
	if err := cmd.Wait(); err != nil {
		h.t.Logf("micro %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out.String()
}

// process is the binary while it runs.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan []byte // of standard output; closed at its end

	Node, Address string // of one that serves
}

// start starts the binary. It is killed when the test ends.
func (h *host) start(args ...string) *process {
	h.t.Helper()
	p := &process{t: h.t, cmd: h.command(context.Background(), args...), lines: make(chan []byte, 64)}
	var stderr bytes.Buffer
	p.cmd.Stderr = &stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	h.inside(p.cmd.Start)
	go func() { // it ends with the process
		defer close(p.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			p.lines <- bytes.Clone(scan.Bytes())
		}
	}()
	h.t.Cleanup(func() {
		p.kill()
		if h.t.Failed() {
			h.t.Logf("standard error of micro %s:\n%s", strings.Join(args, " "), stderr.String())
		}
	})
	return p
}

// serve starts the demo, and waits until it is ready.
func (h *host) serve(args ...string) *process {
	h.t.Helper()
	p := h.start(append([]string{"run", "builtin:greeter", "-o", "jsonl"}, args...)...)
	p.read(p)
	return p
}

// read decodes the next line of the process.
func (p *process) read(v any) {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("%v ended", p.cmd.Args)
		}
		if err := json.Unmarshal(line, v); err != nil {
			p.t.Fatalf("%v wrote %q: %v", p.cmd.Args, line, err)
		}
	case <-time.After(40 * time.Second): // more than mDNS takes to forget a node
		p.t.Fatalf("%v writes nothing", p.cmd.Args)
	}
}

// change is a line of a watched list.
type change struct {
	Event string
	Item  struct{ ID string }
}

func (p *process) event() (c change) {
	p.t.Helper()
	p.read(&c)
	return c
}

// kill ends the process as nothing can be done about.
func (p *process) kill() { p.stop(os.Kill) }

// interrupt lets the process leave by itself.
func (p *process) interrupt() { p.stop(os.Interrupt) }

func (p *process) stop(s os.Signal) {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Signal(s)
	late := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	for range p.lines { // Wait closes the pipe that is read from
	}
	_ = p.cmd.Wait()
}

// ear hears every packet of a machine's link.
type ear struct {
	t  *testing.T
	fd int
}

// listen opens an ear on the link, by packet(7).
func (h *host) listen() *ear {
	h.t.Helper()
	e := &ear{t: h.t}
	h.inside(func() error {
		link, err := net.InterfaceByName("lan")
		if err != nil {
			return err
		}
		all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8 // in the network's order
		e.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
		if err != nil {
			return err
		}
		return unix.Bind(e.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	})
	h.t.Cleanup(func() { _ = unix.Close(e.fd) })
	return e
}

// sent gives the TCP and UDP packets that the machine has sent since the last question. What the kernel sends by itself,
// ARP, neighbour discovery and reports of multicast membership, is left out.
func (e *ear) sent() (packets []string) {
	e.t.Helper()
	buf := make([]byte, 9000)
	for {
		n, from, err := unix.Recvfrom(e.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return packets
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			e.t.Fatal(err)
		}
		if at, ok := from.(*unix.SockaddrLinklayer); !ok || at.Pkttype != unix.PACKET_OUTGOING {
			continue
		}
		if text := transportPacket(buf[:n]); text != "" {
			packets = append(packets, text)
		}
	}
}

// transportPacket tells of an IP packet of TCP or UDP where it goes; of others nothing.
func transportPacket(p []byte) string {
	var protocol byte
	var to net.IP
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		protocol, to = p[9], net.IP(p[16:20])
	case len(p) >= 40 && p[0]>>4 == 6:
		protocol, to = p[6], net.IP(p[24:40])
	}
	if protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP {
		return ""
	}
	return fmt.Sprintf("%d bytes of protocol %d to %v", len(p), protocol, to)
}
