package tryout

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
)

// AddressByName tries a transport of names, by its URL: what micro run listens to by a name is called by it, past any registry, and by
// its service's in the default one; a second of that name is refused, and so are names that are none. It sets the environment.
func AddressByName(t *testing.T, url string) {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	name := fmt.Sprintf("my.name.%d", time.Now().UnixNano())
	ctx, stop := context.WithCancel(t.Context())
	var out buffer
	done := make(chan int, 1)
	go func() {
		d := commands.System([]string{"run", "--transport", url, "--address", name, "builtin:echo"})
		d.Stdin, d.Stdout, d.Stderr = strings.NewReader(""), &out, &out
		d.StdinTTY, d.StdoutTTY, d.StderrTTY, d.StdinData, d.Width, d.Now = false, false, false, false, 0, time.Now
		done <- commands.Main(ctx, d)
	}()
	for until := time.Now().Add(patience); !strings.Contains(out.String(), "is ready on "+name); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it is not ready:\n%s", out.String())
		}
	}
	for _, args := range [][]string{{"--address", name, "--transport", url}, {"--transport", url}} {
		if got := Command(t, append([]string{"call", "echo", "Echo.Call", "text=hi", "-q", ".text"}, args...)...); got != "hi\n" {
			t.Errorf("micro call with %q printed %q", args, got)
		}
	}
	for want, args := range map[string][]string{
		"address " + name + " is taken: another service listens to it": {"run", "--address", name, "builtin:echo"},
		"nobody listens there": {"call", "echo", "Echo.Call", "--address", "my.none"},
		`"my name" is no `:     {"call", "echo", "Echo.Call", "--address", "my name"},
		`"a name" is no `:      {"run", "--address", "a name", "builtin:echo"},
	} {
		if got := Command(t, append(args, "--transport", url)...); !strings.Contains(got, want) {
			t.Errorf("%q printed %q, want %q", args, got, want)
		}
	}
	stop()
	if code := <-done; code != 0 {
		t.Errorf("micro run ended with %d:\n%s", code, out.String())
	}
}

// buffer is what a command prints, for who looks meanwhile.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
