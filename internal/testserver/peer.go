package testserver

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// peerTime is how long a peer may take to answer.
const peerTime = 30 * time.Second

// Peer is a process of another make, that a test gives orders: a line of its standard input each, which it answers by a line of JSON.
// What it tells besides are lines that begin with a word. It may be used by one goroutine at a time.
type Peer struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	end chan struct{} // closed when it has said all

	mu   sync.Mutex
	said map[string]chan string // by word, "" for answers
}

// GoMicro starts go-micro v5.30 in a process of its own, which ends with the test: servers/gomicro, whose modes take args.
func GoMicro(t testing.TB, args ...string) *Peer {
	t.Helper()
	return startPeer(t, program{"gomicro", "."}, args)
}

// program is a package of a module below servers/.
type program struct{ module, target string }

// goMicros are programs with the modes of servers/gomicropeer, by go-micro's version.
var goMicros = map[string]program{
	"v1.18.0": {"gomicro1", "."},
	"v2.9.1":  {"gomicro2", "."},
	"v4.11.0": {"gomicro4", "."},
	"v5.3.0":  {"gomicro5", "."},
	"v5.30.0": {"gomicro", "./peer"},
}

// GoMicroOf starts go-micro of a version, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0" or "v5.30.0", in a process of its own, which ends with the test.
// The args are gomicropeer.Main's, which has to be "serve" or "client".
func GoMicroOf(t testing.TB, version string, args ...string) *Peer {
	t.Helper()
	return startPeer(t, goMicros[version], args)
}

// BuildGoMicro builds go-micro of a version, so that GoMicroOf finds it where no module can be fetched.
func BuildGoMicro(t testing.TB, version string) {
	t.Helper()
	p := goMicros[version]
	if _, err := Build(p.module, p.target); err != nil {
		Skip(t, fmt.Sprintf("no go-micro: %v", err))
	}
}

func startPeer(t testing.TB, of program, args []string) *Peer {
	t.Helper()
	binary, err := Build(of.module, of.target)
	if err != nil {
		Skip(t, fmt.Sprintf("no go-micro: %v", err))
	}
	p := &Peer{t: t, cmd: exec.Command(binary, args...), end: make(chan struct{}), said: map[string]chan string{}}
	p.in, err = p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(out)
	t.Cleanup(p.Stop)
	if line := p.answer(); line != `"ready"` {
		t.Fatalf("%v says %s", args, line)
	}
	return p
}

// read sorts what the process says. Its log, which begins with a date, is nobody's.
func (p *Peer) read(out io.Reader) {
	defer close(p.end)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		line := lines.Text()
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case word == "null" || strings.ContainsAny(line[:min(len(line), 1)], `"{[`):
			p.words("") <- line
		case strings.Trim(word, "abcdefghijklmnopqrstuvwxyz") == "":
			p.words(word) <- rest
		}
	}
}

// Told gives what it tells after a word, "" for answers.
func (p *Peer) Told(word string) <-chan string { return p.words(word) }

func (p *Peer) words(word string) chan string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said[word] == nil {
		p.said[word] = make(chan string, 10_000)
	}
	return p.said[word]
}

// Do gives the answer to an order.
func (p *Peer) Do(order string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, order+"\n"); err != nil {
		p.t.Fatalf("%s: %v", order, err)
	}
	return p.answer()
}

// answer waits for an answer.
func (p *Peer) answer() string {
	p.t.Helper()
	select {
	case line := <-p.Told(""):
		return line
	case <-time.After(peerTime):
		p.t.Fatal("the peer does not answer")
		return ""
	}
}

// Stop ends the process by the end of its input, and waits for it.
func (p *Peer) Stop() {
	_ = p.in.Close()
	<-p.end
	_ = p.cmd.Wait()
}

// Kill ends it as kill -9 does.
func (p *Peer) Kill() {
	_ = p.cmd.Process.Kill()
	p.Stop()
}
