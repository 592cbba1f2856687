//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startCell takes a group of figures in a process with a network namespace and folders of its own. The namespace goes
// with the process.
func startCell(s settings, cell string) ([]figure, error) {
	fmt.Fprintf(os.Stderr, "measure: %s\n", cell)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(s.bin, cell)
	if err != nil {
		return nil, err
	}
	attr := isolation()
	if attr == nil && cell != "start" {
		fmt.Fprintf(os.Stderr, "measure: %s is SKIPPED: network namespaces need root, or user namespaces\n", cell)
		return nil, nil
	}
	cmd := exec.Command(self, "-cell", cell, "-bin", s.bin, "-runs", strconv.Itoa(s.runs))
	cmd.SysProcAttr = attr
	cmd.Env = environment(private)
	cmd.Stderr = os.Stderr
	before := elsewhere()
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("figures of %s: %w", cell, err)
	}
	var figures []figure
	if err := json.Unmarshal(out, &figures); err != nil {
		return nil, fmt.Errorf("figures of %s: %w", cell, err)
	}
	return append(figures, figure{
		Group: figures[len(figures)-1].Group, What: "taken by other programs, just before and just after",
		Measured: fmt.Sprintf("%.0f %%, %.0f %% of the processors", before, elsewhere()),
	}), nil
}

// elsewhere gives how much of the processors others take, in percent, over a second in which this program does nothing.
func elsewhere() float64 {
	begun, busy := time.Now(), processors()
	time.Sleep(time.Second)
	return 100 * float64(processors()-busy) / float64(time.Since(begun)) / float64(runtime.NumCPU())
}

// processors gives the time that this machine's processors were not idle since it started, by proc_stat(5).
func processors() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var ticks int64
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err == nil && i != 4 && i != 5 && i < 9 { // idle, waiting for a disk, and guests, who are counted already
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100) // USER_HZ is 100 wherever Go runs
}

// isolation gives what makes a child's network its own, or nil where that is not allowed.
func isolation() *syscall.SysProcAttr {
	try := []*syscall.SysProcAttr{{Cloneflags: syscall.CLONE_NEWNET}, {
		Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}}
	for _, attr := range try {
		probe := exec.Command("ip", "link", "set", "lo", "up")
		probe.SysProcAttr = attr
		if probe.Run() == nil {
			attr.Pdeathsig = syscall.SIGKILL
			return attr
		}
	}
	return nil
}

// environment is this process's, with private folders, and without what would change how micro behaves.
func environment(private string) []string {
	env := []string{"XDG_RUNTIME_DIR=" + private, "TMPDIR=" + private, "HOME=" + private, "XDG_CONFIG_HOME=" + private}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "MICRO_"), strings.HasPrefix(name, "XDG_"), name == "TMPDIR", name == "HOME":
		default:
			env = append(env, kv)
		}
	}
	return env
}

// inCell takes the figures of this process's cell.
func inCell(s settings) ([]figure, error) {
	c := &cell{settings: s}
	defer c.end()
	_ = ip("link", "set", "lo", "up") // without a namespace it is up
	ctx := context.Background()
	switch s.cell {
	case "start":
		return c.startUp(ctx)
	case "network":
		// What a machine usually has, to nowhere: the other end of the link is here as well.
		for _, args := range []string{"link add lan type veth peer name end", "addr add 10.88.0.1/24 dev lan", "link set lan up", "link set end up", "route add default via 10.88.0.2"} {
			if err := ip(strings.Fields(args)...); err != nil {
				return nil, err
			}
		}
		return c.discovery(ctx, "One machine, 100 services in 100 processes", true)
	case "loopback":
		return c.discovery(ctx, "The same with only `lo` up and no route", false)
	case "lan":
		return c.lan(ctx)
	}
	return nil, errors.New("there is no such cell")
}

// cell starts processes, and ends what it started.
type cell struct {
	settings
	running []*service
}

// service is a started process that says on its standard output where it listens.
type service struct {
	cmd     *exec.Cmd
	out     *bufio.Reader
	close   io.Closer
	started time.Time // just before it was
	address string
	begun   time.Time // when it began to listen
	ready   time.Time // when it was registered
}

func (c *cell) path(name string) string { return filepath.Join(c.bin, name) }

// command prepares a program of the measured ones, with more of an environment.
func (c *cell) command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path(name), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start starts a process that prints when it is ready.
func (c *cell) start(cmd *exec.Cmd) (*service, error) {
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	s := &service{cmd: cmd, out: bufio.NewReader(pipe), close: pipe, started: time.Now()}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.running = append(c.running, s)
	return s, nil
}

// hello starts a hello service of that name, and waits until it is registered.
func (c *cell) hello(ctx context.Context, binary, name string, env ...string) (*service, error) {
	s, err := c.start(c.command(ctx, append(env, "MICRO_SERVICE="+name), binary))
	if err != nil {
		return nil, err
	}
	return s, s.await()
}

// await reads a hello service's line.
func (s *service) await() error {
	line, err := s.out.ReadString('\n')
	s.ready = time.Now()
	if err != nil {
		return fmt.Errorf("%s ended before it was ready: %w", s.cmd.Path, err)
	}
	address, stamp, _ := strings.Cut(strings.TrimSpace(line), " ")
	ns, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return fmt.Errorf("%s said %q", s.cmd.Path, line)
	}
	s.address, s.begun = address, time.Unix(0, ns)
	return nil
}

// kill ends the process at once, and waits for it.
func (s *service) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// end ends everything that was started.
func (c *cell) end() {
	for _, s := range c.running {
		if s.cmd.ProcessState == nil {
			s.kill()
		}
	}
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
