package micro_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

// What the garbage collector does is the process's, so each case of these tests has a process of its own: heapChildren in childEnv
// makes the test binary one.
const (
	heapChildren = "heap"
	heapCase     = "MICRO_TEST_HEAP"
)

// heapReport is what a case found.
type heapReport struct {
	Before, During, After int    // GOGC: without a service, while one runs, when none does any more
	Collections           uint32 // during the load
}

// gogc is the GOGC that holds.
func gogc() int {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return int(int32(s[0].Value.Uint64()))
}

// collected has the collector run until ok, and reports whether that came to be.
func collected(ok func() bool) bool {
	for range 500 {
		if ok() {
			return true
		}
		runtime.GC()
		time.Sleep(time.Millisecond) // what follows a collection runs on another goroutine
	}
	return false
}

// held is a service that runs, with a handler that makes garbage.
type held struct {
	*micro.Service
	stop func() error
}

func hold(opts ...micro.Option) (*held, error) {
	up := make(chan struct{})
	s, err := micro.New("greeter", append(opts, micro.Registry(memory.New()), micro.Grace(0), micro.Signals(false),
		micro.AfterStart(func(context.Context) error { close(up); return nil }))...)
	if err != nil {
		return nil, err
	}
	_ = micro.Handle(s, "Say.Hello", func(_ context.Context, in *Hello) (*Greeting, error) {
		return &Greeting{Msg: string(make([]byte, len(in.Name)<<14)[:1])}, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-up:
	case err := <-done:
		cancel()
		return nil, errors.Join(err, errors.New("it has not started"))
	}
	return &held{s, func() error { cancel(); return <-done }}, nil
}

// load makes calls that leave 100 MiB behind, and gives how often the collector ran.
func (h *held) load() (uint32, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 6400 {
		if _, err := client.Call[Greeting](context.Background(), h.Client(), "greeter", "Say.Hello", &Hello{Name: "x"}); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return after.NumGC - before.NumGC, nil
}

// heapCases are what is done while a service runs, and what that is.
var heapCases = map[string]struct {
	opts []micro.Option
	do   func(r *heapReport) error
}{
	"":    {},
	"off": {opts: []micro.Option{micro.MinHeap(0)}},
	"percent": {do: func(*heapReport) error {
		debug.SetGCPercent(150)
		runtime.GC()
		return nil
	}},
	"limit": {do: func(r *heapReport) error {
		debug.SetMemoryLimit(1 << 30)
		if !collected(func() bool { return gogc() == 100 }) {
			return fmt.Errorf("GOGC stays %d under a limit", gogc())
		}
		return nil
	}},
	"large": {do: func(r *heapReport) error {
		kept := make([]*[1 << 10]byte, 24<<10)
		for i := range kept {
			kept[i] = new([1 << 10]byte)
		}
		if !collected(func() bool { return gogc() == 100 }) {
			return fmt.Errorf("GOGC stays %d with 24 MiB in use", gogc())
		}
		runtime.KeepAlive(kept)
		kept = nil
		if !collected(func() bool { return gogc() > 300 }) {
			return fmt.Errorf("GOGC stays %d when they have been given back", gogc())
		}
		return nil
	}},
	"two": {do: func(r *heapReport) error {
		second, err := hold(micro.MinHeap(64 << 20))
		if err != nil {
			return err
		}
		if gogc() <= r.During {
			return fmt.Errorf("GOGC is %d with a larger floor, %d without", gogc(), r.During)
		}
		if err := second.stop(); err != nil {
			return err
		}
		if gogc() != r.During {
			return fmt.Errorf("GOGC is %d after the second service, %d before", gogc(), r.During)
		}
		return nil
	}},
}

func heapChild() int {
	c, r := heapCases[os.Getenv(heapCase)], heapReport{Before: gogc()}
	err := func() error {
		h, err := hold(c.opts...)
		if err != nil {
			return err
		}
		r.During = gogc()
		if c.do == nil {
			r.Collections, err = h.load()
		} else {
			err = c.do(&r)
		}
		err = errors.Join(err, h.stop())
		r.After = gogc()
		return err
	}()
	if err = errors.Join(err, json.NewEncoder(os.Stdout).Encode(r)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// runHeapCase runs a case in a process of its own.
func runHeapCase(t *testing.T, name string, env ...string) (r heapReport) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), "GOGC=", "GOMEMLIMIT=", childEnv+"="+heapChildren, heapCase+"="+name), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}

// TestMinHeap: while a service runs the collector leaves a small heap alone, unless something else was asked for.
func TestMinHeap(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		does                  string
		env                   []string
		before, during, after int // GOGC; during 0 is more than 300
	}{
		"by itself":              {"", nil, 100, 0, 100},
		"off":                    {"off", nil, 100, 100, 100},
		"GOGC":                   {"", []string{"GOGC=100"}, 100, 100, 100},
		"GOGC off":               {"", []string{"GOGC=off"}, -1, -1, -1},
		"GOMEMLIMIT":             {"", []string{"GOMEMLIMIT=1GiB"}, 100, 100, 100},
		"set while it runs":      {"percent", nil, 100, 0, 150},
		"limited while it runs":  {"limit", nil, 100, 0, 100},
		"a heap that is larger":  {"large", nil, 100, 0, 100},
		"two services, one ends": {"two", nil, 100, 0, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runHeapCase(t, tt.does, tt.env...)
			if r.Before != tt.before || r.During != tt.during && (tt.during != 0 || r.During <= 300) || r.After != tt.after {
				t.Errorf("GOGC is %d, %d while a service runs, and %d in the end", r.Before, r.During, r.After)
			}
		})
	}
}

// TestMinHeapCollections: the same calls have the collector run much less often.
func TestMinHeapCollections(t *testing.T) {
	t.Parallel()
	with, without := runHeapCase(t, "").Collections, runHeapCase(t, "off").Collections
	t.Logf("%d collections, %d without MinHeap", with, without)
	if with == 0 || with*2 > without {
		t.Errorf("%d collections, and %d without MinHeap", with, without)
	}
}

func TestMinHeapRefused(t *testing.T) {
	t.Parallel()
	if s, err := micro.New("greeter", micro.Registry(newRegistry(t)), micro.MinHeap(-1)); err == nil {
		t.Error("MinHeap(-1) was taken", s.Close())
	}
}
