// Package child starts the programs of bench/peers, one process for each end of a measurement, and talks with them. See
// package worker for the other side.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

// patience bounds the wait for a child's answer, beyond what it was asked to take.
const patience = 30 * time.Second

// Programs are the built programs of the peers.
type Programs struct {
	dir string
	// Profiles is the folder for the CPU profile of each process while it was measured; none where it is empty.
	Profiles string
}

// Build builds the programs into dir, stripped, as they would be released.
func Build(ctx context.Context, dir string, programs []string) (Programs, error) {
	args := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}
	for _, p := range programs {
		args = append(args, "./peers/"+p)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("building the peers (run this in bench/): %w\n%s", err, out)
	}
	return Programs{dir: dir}, nil
}

// Size is that of a program in bytes.
func (p Programs) Size(program string) (int64, error) {
	info, err := os.Stat(filepath.Join(p.dir, program))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Child is a process of a peer. Its methods are for one goroutine at a time.
type Child struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan []byte // closed when its output ends
}

// Start starts a process. It is killed when ctx ends.
func (p Programs) Start(ctx context.Context, program, peer, role string, c cell.Cell, warm time.Duration) (*Child, error) {
	args := []string{"-role", role, "-peer", peer, "-cell", c.String(), "-warm", warm.String()}
	if p.Profiles != "" {
		name := strings.NewReplacer("/", "-", ":", "-").Replace(c.String())
		args = append(args, "-profile", filepath.Join(p.Profiles, peer+"-"+name+"-"+role+".pprof"))
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.dir, program), args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ch := &Child{name: fmt.Sprintf("%s's %s of %s", peer, role, c), cmd: cmd, in: in, lines: make(chan []byte, 4)}
	go func() {
		defer close(ch.lines)
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			ch.lines <- line
		}
	}()
	return ch, nil
}

// Read waits for the child's next line and decodes it into v.
func (c *Child) Read(v any, within time.Duration) error {
	timer := time.NewTimer(within + patience)
	defer timer.Stop()
	select {
	case line, ok := <-c.lines:
		if !ok {
			return fmt.Errorf("%s ended without an answer; what it said stands above", c.name)
		}
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("%s answered %q: %w", c.name, line, err)
		}
		return nil
	case <-timer.C:
		return fmt.Errorf("%s did not answer within %v", c.name, within+patience)
	}
}

// say says a word to the child.
func (c *Child) say(word string) error {
	if _, err := io.WriteString(c.in, word+"\n"); err != nil {
		return fmt.Errorf("telling %s to %s: %w", c.name, word, err)
	}
	return nil
}

// Tell gives the child a server's place.
func (c *Child) Tell(at worker.Place) error {
	if err := json.NewEncoder(c.in).Encode(at); err != nil {
		return fmt.Errorf("telling %s the place: %w", c.name, err)
	}
	return nil
}

// sample waits for the answer to "end".
func (c *Child) sample() (worker.Sample, error) {
	var s worker.Sample
	err := c.Read(&s, 0)
	return s, errors.Join(err, problem(c, s.Error))
}

// ready waits until a client has called for its warm-up, or for the answer to "begin".
func (c *Child) ready(within time.Duration) error {
	var r worker.Ready
	err := c.Read(&r, within)
	return errors.Join(err, problem(c, r.Error))
}

func problem(c *Child, text string) error {
	if text == "" {
		return nil
	}
	return fmt.Errorf("%s: %s", c.name, text)
}

// RSS is what the child has resident, in KiB.
func (c *Child) RSS() (int, error) { return worker.Resident(c.cmd.Process.Pid) }

// Stop ends the process and waits for it. One that does not end by itself is killed.
func (c *Child) Stop() {
	_ = c.in.Close()
	kill := time.AfterFunc(time.Second, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	for range c.lines { // so that it can end
	}
	_ = c.cmd.Wait() // its failure has been told by its answers
}
