//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/registry"
)

const (
	crowd   = 100              // services
	changes = 60               // nodes that come and go before a watch
	longest = 10 * time.Second // to wait for one of them
)

func name(i int) string { return fmt.Sprintf("hello-%03d", i) }

// discovery lists a crowd, and watches nodes come and go beside it.
func (c *cell) discovery(ctx context.Context, group string, alone bool) ([]figure, error) {
	var names []string
	for i := range crowd {
		if _, err := c.hello(ctx, "hello", name(i)); err != nil {
			return nil, err
		}
		names = append(names, name(i))
	}
	time.Sleep(2 * time.Second) // the announcements of the last are over
	lists := []struct {
		registry, shown string
		runs            int
		budget          time.Duration
	}{{"default", "", c.runs, 75 * time.Millisecond}, {"local", " --registry local", c.runs, 20 * time.Millisecond}, {"mdns", " --registry mdns", c.runs, 0}}
	if !alone {
		lists = lists[:2]
	}
	var figures []figure
	for _, l := range lists {
		good, times, err := repeat(l.runs, func() (bool, error) {
			return listsAll(c.command(ctx, nil, "micro", "list", "services", "--registry", l.registry), names)
		})
		if err != nil {
			return nil, err
		}
		what := "`micro list services" + l.shown + "`"
		whole := complete(group, what+" shows all", good, l.runs)
		if l.budget == 0 {
			whole.Budget = ""
		}
		figures = append(figures, whole, times.within(group, what+", exec to exit", 0.95, l.budget))
	}
	if alone {
		f, err := c.busy(ctx, group, names)
		if err != nil {
			return nil, err
		}
		figures = append(figures, f...)
	}
	for _, r := range []string{"default", "local"} {
		more, err := c.watch(ctx, group, r)
		if err != nil {
			return nil, err
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// busy lists while other programs take all processors twice over. There is no budget for it: it is how far a figure may
// be trusted that was taken on a quiet machine.
func (c *cell) busy(ctx context.Context, group string, names []string) ([]figure, error) {
	for range 2 * runtime.NumCPU() {
		spin := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
		spin.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		s, err := c.start(spin)
		if err != nil {
			return nil, err
		}
		defer s.kill()
	}
	var figures []figure
	for _, r := range []string{"default", "mdns"} {
		good, times, err := repeat(c.runs, func() (bool, error) {
			return listsAll(c.command(ctx, nil, "micro", "list", "services", "--registry", r), names)
		})
		if err != nil {
			return nil, err
		}
		f := times.within(group, fmt.Sprintf("`micro list services --registry %s`, all processors taken twice over: complete, and exec to exit", r), 0.95, 0)
		f.Measured = fmt.Sprintf("%d of %d, %s", good, c.runs, f.Measured)
		figures = append(figures, f)
	}
	return figures, nil
}

// repeat runs something often, and counts how often it was right.
func repeat(runs int, once func() (bool, error)) (good int, times sample, err error) {
	for range runs {
		begun := time.Now()
		ok, err := once()
		if err != nil {
			return good, times, err
		}
		times = append(times, time.Since(begun))
		if ok {
			good++
		}
	}
	return good, times, nil
}

// listsAll runs a listing, and reports whether each name stands in it.
func listsAll(cmd *exec.Cmd, names []string) (bool, error) {
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return false, fmt.Errorf("%v: %w: %s", cmd.Args, err, exit.Stderr)
	} else if err != nil {
		return false, err
	}
	for _, n := range names {
		if !bytes.Contains(out, []byte(n)) {
			return false, nil
		}
	}
	return true, nil
}

// watch takes how long nodes take to show in an open watch of one service, and to leave it when they are killed.
func (c *cell) watch(ctx context.Context, group, kind string) ([]figure, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := commands.DefaultBackends().Registries.Open(ctx, kind)
	if err != nil {
		return nil, err
	}
	seen, followed := follow(ctx, r)
	defer func() { cancel(); <-followed; _ = r.Close() }()
	if _, err := until(seen, 0); err != nil {
		return nil, err
	}
	var come, gone sample
	for range changes {
		s, err := c.hello(ctx, "hello", "visitor")
		if err != nil {
			return nil, err
		}
		at, err := until(seen, 1)
		if err != nil {
			return nil, fmt.Errorf("a new node: %w", err)
		}
		come = append(come, at.Sub(s.begun))
		killed := time.Now()
		_ = s.cmd.Process.Kill()
		at, err = until(seen, 0)
		_ = s.cmd.Wait()
		if err != nil { // what goes only with its ttl is told as it is, and ends the row
			return append([]figure{come.within(group, "a new node shows in a watch, "+kind, 0.95, 20*time.Millisecond)}, figure{
				Group: group, What: "a killed one goes, " + kind, Budget: "p95 50.0 ms", Measured: "not within " + longest.String(), Ratio: 100}), nil
		}
		gone = append(gone, at.Sub(killed))
	}
	return []figure{
		come.within(group, fmt.Sprintf("a new node shows in a watch, %s, %d times", kind, changes), 0.95, 20*time.Millisecond),
		gone.within(group, fmt.Sprintf("a killed one goes, %s, %d times", kind, changes), 0.95, 50*time.Millisecond),
	}, nil
}

// sight is a set that a watch gave.
type sight struct {
	nodes int
	at    time.Time
}

// follow watches the visitors until ctx ends, and closes done then.
func follow(ctx context.Context, r registry.Finder) (seen <-chan sight, done <-chan struct{}) {
	out, over := make(chan sight, 1024), make(chan struct{})
	go func() {
		defer close(over)
		for nodes, err := range r.Watch(ctx, "visitor") {
			if err == nil {
				out <- sight{len(nodes), time.Now()}
			}
		}
	}()
	return out, over
}

// until waits for a set of that many nodes, and gives when it came.
func until(seen <-chan sight, nodes int) (time.Time, error) {
	late := time.After(longest)
	for {
		select {
		case s := <-seen:
			if s.nodes == nodes {
				return s.at, nil
			}
		case <-late:
			return time.Time{}, fmt.Errorf("a watch gave no set of %d nodes within %v", nodes, longest)
		}
	}
}
