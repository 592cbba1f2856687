//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lanGroup = "Two machines: namespaces joined by a bridge, `--registry default?scope=lan`"
	lanName  = "default?scope=lan"
	lanRuns  = 100
)

// lan lists and calls a service of the other end of a bridge.
func (c *cell) lan(ctx context.Context) ([]figure, error) {
	var hosts []int // the processes whose namespaces they are
	for i := range 2 {
		pid, err := c.host(ctx, i)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, pid)
	}
	if err := inside(hosts[0], func() error {
		_, err := c.hello(ctx, "hello", "hello", "MICRO_REGISTRY="+lanName)
		return err
	}); err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Second) // the announcements are over: what follows asks
	var figures []figure
	err := inside(hosts[1], func() error {
		good, times, err := repeat(lanRuns, func() (bool, error) {
			return listsAll(c.command(ctx, nil, "micro", "list", "services", "--registry", lanName), []string{"hello"})
		})
		if err != nil {
			return err
		}
		figures = append(figures, complete(lanGroup, "`micro list services` shows the other machine's", good, lanRuns),
			times.within(lanGroup, "`micro list services`, exec to exit", 0.95, 0))
		good, times, err = repeat(lanRuns, func() (bool, error) {
			out, err := c.command(ctx, nil, "micro", "call", "hello", "Say.Hello", `{"name":"x"}`, "--registry", lanName).Output()
			return err == nil && strings.Contains(string(out), "Hello x"), nil
		})
		figures = append(figures, complete(lanGroup, "`micro call hello Say.Hello` is answered", good, lanRuns),
			times.within(lanGroup, "`micro call`, exec to exit", 0.95, 0))
		return err
	})
	return figures, err
}

// host makes a namespace with one end of a link, whose other end is on the bridge, and gives the process that holds it.
func (c *cell) host(ctx context.Context, i int) (int, error) {
	if i == 0 {
		for _, args := range []string{"link add name bridge0 type bridge", "link set bridge0 up"} {
			if err := ip(strings.Fields(args)...); err != nil {
				return 0, err
			}
		}
	}
	holder := exec.CommandContext(ctx, "sleep", "1d")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if _, err := c.start(holder); err != nil {
		return 0, err
	}
	pid := holder.Process.Pid
	port := "port" + strconv.Itoa(i)
	for _, args := range []string{
		fmt.Sprintf("link add %s type veth peer name lan netns %d", port, pid), "link set " + port + " master bridge0 up",
	} {
		if err := ip(strings.Fields(args)...); err != nil {
			return 0, err
		}
	}
	return pid, inside(pid, func() error {
		for _, args := range []string{"link set lo up", fmt.Sprintf("addr add 10.88.0.%d/24 dev lan", i+1), "link set lan up"} {
			if err := ip(strings.Fields(args)...); err != nil {
				return err
			}
		}
		return nil
	})
}

// inside runs f in the network namespace of a process: what f starts is started there.
func inside(pid int, f func() error) error {
	runtime.LockOSThread()
	back, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer func() { _ = back.Close() }()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the namespace of %d: %w", pid, err)
	}
	result := f()
	if err := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("leave the namespace of %d: %w", pid, err) // the thread stays locked: nobody else gets it
	}
	runtime.UnlockOSThread()
	return result
}
