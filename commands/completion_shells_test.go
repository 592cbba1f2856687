//go:build linux

package commands_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
)

// shellLines are typed into real shells, with the Tab key where it stands, and become the words that are wanted.
var shellLines = []struct{ typed, want string }{
	{"micro compl\tba\t", "<micro><completion><bash>"},
	{"micro call gre\tSay.H\t", "<micro><call><greeter><Say.Hello>"},
	{"micro call greeter Say.Hello na\tx", "<micro><call><greeter><Say.Hello><name=x>"},
	{"micro list --registry=def\t", "<micro><list><--registry=default>"},
	{"micro list --registry http:\th", "<micro><list><--registry><http://h>"},
	{"micro call -H content-type:application/octet-s\t", "<micro><call><-H><content-type:application/octet-stream>"},
	{"micro describe x --proto d/a\t", "<micro><describe><x><--proto><d/a file.proto>"},
	{"micro registry --token-file ~/d/a\t", "<micro><registry><--token-file><HOME/d/a file.proto>"},
	{"micro publish topic photo@d/a\t", "<micro><publish><topic><photo@d/a file.proto>"},
	{"micro call grpc://ADDRESS greeter.S\tHell\tna\tx", "<micro><call><grpc://ADDRESS><greeter.Say/Hello><name=x>"},
}

// shellHome is a folder with the binary, a file, and a service that runs.
type shellHome struct {
	dir, address string
	env          []string
}

func newShellHome(t *testing.T) shellHome {
	t.Helper()
	h := shellHome{dir: t.TempDir()}
	binary := filepath.Join(h.dir, "micro")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "..").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if err := os.Mkdir(filepath.Join(h.dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "d", "a file.proto"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.env = append(os.Environ(), "PATH="+h.dir+":"+os.Getenv("PATH"), "HOME="+h.dir, "ZDOTDIR="+h.dir, "XDG_CONFIG_HOME="+h.dir, "XDG_DATA_HOME="+h.dir,
		"TERM=xterm", "LC_ALL=C.UTF-8", "MICRO_REGISTRY=local://?dir="+h.dir+"/nodes", "MICRO_COMPLETION_TIMEOUT=20s")
	run := exec.CommandContext(t.Context(), binary, "run", "builtin:greeter")
	run.Dir, run.Env = h.dir, h.env
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = run.Process.Kill(); _ = run.Wait() })
	for h.address == "" {
		list := exec.CommandContext(t.Context(), binary, "list", "nodes")
		list.Env = h.env
		out, _ := list.Output()
		if fields := strings.Split(string(out), "\t"); len(fields) > 2 {
			h.address = fields[2]
		} else if t.Context().Err() != nil || run.ProcessState != nil {
			t.Fatal("the service does not start")
		}
	}
	return h
}

// TestShells types lines with Tab into bash, zsh and fish.
func TestShells(t *testing.T) {
	for _, tool := range []string{"script", "bash", "zsh", "fish"} {
		if _, err := exec.LookPath(tool); err != nil && tool != "zsh" && tool != "fish" {
			testserver.Skip(t, tool+" is not installed")
		}
	}
	h := newShellHome(t)
	const show = `args() { printf '<%s>' "$@"; echo; }` + "\n"
	for shell, start := range map[string]struct{ rc, command, text string }{
		"bash": {"bashrc", "bash --noprofile --rcfile bashrc -i", show + "stty cols 200\nPS1='rea''dy> '; HISTFILE=\nsource <(micro completion bash)\n"},
		"zsh": {".zshrc", "zsh -d -i", show + "stty cols 200\nPS1='rea''dy> '; HISTFILE=; bindkey -e\n" +
			"autoload -Uz compinit && compinit -u -D; source <(micro completion zsh)\n"},
	} {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				testserver.Skip(t, shell+" is not installed")
			}
			if err := os.WriteFile(filepath.Join(h.dir, start.rc), []byte(start.text), 0o600); err != nil {
				t.Fatal(err)
			}
			p := h.start(t, start.command)
			p.await(t, 0, "ready> ")
			for _, l := range shellLines {
				from := p.len()
				p.enter(strings.ReplaceAll(l.typed, "ADDRESS", h.address) + "\x01args \r")
				p.await(t, from, strings.NewReplacer("ADDRESS", h.address, "HOME", h.dir).Replace(l.want)+"\r\n")
			}
		})
	}
	t.Run("fish", func(t *testing.T) {
		if _, err := exec.LookPath("fish"); err != nil {
			testserver.Skip(t, "fish is not installed")
		}
		for line, want := range map[string]string{
			"micro completion b":                                  "bash\n",
			"micro call gre":                                      "greeter\tlatest · 1 node\n",
			"micro call greeter Say.H":                            "Say.Hello\tunary\n",
			"micro call greeter Say.Hello na":                     "name=\tstring, required: who to greet\n",
			"micro list --registry=def":                           "--registry=default\tthis machine's services\n",
			"micro describe x --proto d/a":                        "d/a file.proto\n",
			"micro call grpc://" + h.address + " greeter.Say/Hel": "greeter.Say/Hello\tunary",
		} {
			cmd := exec.CommandContext(t.Context(), "fish", "-c", "micro completion fish | source; complete -C '"+line+"'")
			cmd.Dir, cmd.Env = h.dir, h.env
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), want) || strings.Count(string(out), "\n") != 1 {
				t.Errorf("%s: %q, want %q (%v)", line, out, want, err)
			}
		}
	})
}

// terminalOf is a shell at a terminal, which script(1) makes.
type terminalOf struct {
	in io.Writer

	mu   sync.Mutex
	out  bytes.Buffer
	more chan struct{}
}

func (h shellHome) start(t *testing.T, command string) *terminalOf {
	t.Helper()
	p := &terminalOf{more: make(chan struct{}, 1)}
	cmd := exec.Command("script", "-qfc", command, "/dev/null")
	cmd.Dir, cmd.Env, cmd.Stdout = h.dir, h.env, p
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.enter("\x03exit\r")
		ended := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		ended.Stop()
		_ = in.Close()
	})
	return p
}

func (p *terminalOf) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Write(b)
	select {
	case p.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (p *terminalOf) enter(keys string) { _, _ = io.WriteString(p.in, keys) }

func (p *terminalOf) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Len()
}

// await waits until text is shown after the first from bytes.
func (p *terminalOf) await(t *testing.T, from int, text string) {
	t.Helper()
	up := time.After(30 * time.Second)
	for {
		p.mu.Lock()
		shown := p.out.String()[from:]
		p.mu.Unlock()
		if strings.Contains(shown, text) {
			return
		}
		select {
		case <-p.more:
		case <-up:
			t.Fatalf("the terminal does not show %q, but %q", text, shown)
		}
	}
}
