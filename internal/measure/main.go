//go:build linux

// Measure takes the figures that docs/performance.md shows: sizes, start-up, discovery and calls of the whole binary and
// of small services, in network namespaces and folders of their own, so that nothing else on the machine is found.
//
//	measure         everything, written between the page's marks
//	measure short   sizes and start-up alone; the exit status is 1 if a budget is clearly missed
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// page is where the tables stand, from the repository's root.
const page = "docs/performance.md"

// settings are the command line's.
type settings struct {
	cell  string
	bin   string
	runs  int
	short bool
	page  string
}

func main() {
	var s settings
	flag.StringVar(&s.cell, "cell", "", "take one group of figures in this process's namespace, and print them as JSON (used by measure itself)")
	flag.StringVar(&s.bin, "bin", "", "the folder with the binaries (used by measure itself)")
	flag.StringVar(&s.page, "page", page, "the page to write")
	flag.IntVar(&s.runs, "runs", 200, "how often to list services")
	flag.Parse()
	s.short = flag.Arg(0) == "short"
	if flag.NArg() > 1 || flag.NArg() == 1 && !s.short {
		fmt.Fprintln(os.Stderr, "usage: measure [short]")
		os.Exit(2)
	}
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	if s.cell != "" {
		figures, err := inCell(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.cell, err)
		}
		return json.NewEncoder(os.Stdout).Encode(figures)
	}
	dir, err := os.MkdirTemp("", "measure")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s.bin = dir
	where := machine()
	figures, err := build(dir)
	if err != nil {
		return err
	}
	cells := []string{"start"}
	if !s.short {
		cells = []string{"start", "network", "loopback", "lan"}
	}
	for _, cell := range cells {
		more, err := startCell(s, cell)
		if err != nil {
			return err
		}
		figures = append(figures, more...)
	}
	text := where + "\n" + table(figures)
	fmt.Print(text)
	if !s.short {
		return writePage(s.page, text)
	}
	return judge(figures)
}

// judge refuses figures that clearly miss their budget.
func judge(figures []figure) error {
	var bad []string
	for _, f := range figures {
		if f.fails() {
			bad = append(bad, fmt.Sprintf("%s: %s, budget %s", f.What, f.Measured, f.Budget))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("over budget:\n  %s", strings.Join(bad, "\n  "))
	}
	return nil
}

// build makes the binaries, stripped as they are released, and gives their sizes.
func build(dir string) ([]figure, error) {
	var figures []figure
	for _, b := range []struct {
		name, pkg, what string
		budget          int64
	}{
		{"micro", ".", "`micro`", 34.5e6}, // with the clients of all systems that it can use
		{"hello", "./internal/measure/hello", "a service with a typed handler", 11e6},
		{"hellostruct", "./internal/measure/hellostruct", "a service with `Register(struct)`", 12.8e6},
	} {
		path := filepath.Join(dir, b.name)
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, b.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("build %s: %w", b.pkg, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		f := sized("Size of the stripped binary", b.what, info.Size(), b.budget)
		f.Slack = 1
		figures = append(figures, f)
	}
	return figures, nil
}

// machine says on what, and how quiet it was.
func machine() string {
	cpu := "processor unknown"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	load := "unknown"
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Fields(string(text))[0]
	}
	text := fmt.Sprintf("%s, %d of its threads; Linux %s, %s. Load before the first figure: %s.",
		cpu, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), load)
	// The system call gives 20 less the niceness.
	if p, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err == nil && p != 20 {
		text += fmt.Sprintf(" Everything ran at niceness %d.", 20-p)
	}
	return text + "\n"
}
