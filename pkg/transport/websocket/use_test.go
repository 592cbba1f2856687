package websocket_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/websocket"
)

type note struct {
	Text string `json:"text"`
}

var drivers = micro.Drivers{Transports: transport.Openers{"ws": websocket.Open, "wss": websocket.Open}}

// run runs a service named "notes" as the environment says, until the end of the test.
func run(t *testing.T) registry.Node {
	t.Helper()
	ready := make(chan struct{})
	svc, err := micro.New("notes", micro.Signals(false), micro.Grace(0), micro.FromEnv(drivers), micro.AfterStart(func(context.Context) error { close(ready); return nil }))
	must(t, err)
	must(t, micro.Handle(svc, "Notes.Echo", func(_ context.Context, n *note) (*note, error) { return n, nil }))
	must(t, micro.HandleBidi(svc, "Notes.Chat", func(_ context.Context, st *micro.Stream[note, note]) error {
		for n, err := range st.All() {
			if err != nil {
				return err
			}
			if err := st.Send(n); err != nil {
				return err
			}
		}
		return nil
	}))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	return svc.Node()
}

// TestByURL: a service that takes its transport from the environment is called by another program, and by the command, that find
// it, whether they were told the transport or not.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(micro.EnvRegistry, "local://?dir="+filepath.Join(t.TempDir(), "registry"))
	t.Setenv(micro.EnvTransport, "ws://")
	t.Setenv(websocket.EnvToken, "s3cret")
	node := run(t)
	if node.Metadata[registry.MetaTransport] != "ws" {
		t.Errorf("the node's labels are %v", node.Metadata)
	}
	for name, url := range map[string]string{"the same transport": "ws://", "none": ""} {
		t.Setenv(micro.EnvTransport, url)
		caller, err := micro.New("caller", micro.FromEnv(drivers))
		must(t, err)
		if got, err := client.Call[note](t.Context(), caller.Client(), "notes", "Notes.Echo", &note{Text: "hello"}); err != nil || got.Text != "hello" {
			t.Errorf("by %s the call gave %+v, %v", name, got, err)
		}
		must(t, caller.Close())
		for _, args := range [][]string{
			{"call", "notes", "Notes.Echo", "text=hi", "-q", ".text"},
			{"call", "--all", "notes", "Notes.Echo", "text=hi", "-q", ".[].body.text"},
			{"stream", "notes", "Notes.Chat", "text=hi", "-q", ".text"},
		} {
			if out := tryout.Command(t, args...); out != "hi\n" {
				t.Errorf("by %s micro %v printed %q", name, args, out)
			}
		}
		if out := tryout.Command(t, "health", "notes"); !strings.Contains(out, "ok") {
			t.Errorf("by %s micro health printed %q", name, out)
		}
	}
	if out := tryout.Command(t, "call", "--address", "ws://"+node.Address, "notes", "Notes.Echo", "text=hi", "-q", ".text"); out != "hi\n" {
		t.Errorf("to the address micro call printed %q", out)
	}
	t.Setenv(websocket.EnvToken, "gu3ss")
	if out := tryout.Command(t, "call", "notes", "Notes.Echo", "text=hi"); !strings.Contains(out, "refused: the token is wrong, or there is none") || strings.Contains(out, "gu3ss") || strings.Contains(out, "s3cret") {
		t.Errorf("by another token micro call printed %q", out)
	}
}

// TestBesideByURL: WebSocket on HTTP's port, by URL alone.
func TestBesideByURL(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(micro.EnvRegistry, "local://?dir="+filepath.Join(t.TempDir(), "registry"))
	t.Setenv(micro.EnvTransport, "http://?beside=ws")
	node := run(t)
	for _, by := range []string{"http", "ws", "http://?plain=true"} {
		if out := tryout.Command(t, "call", "--transport", by, "--address", node.Address, "notes", "Notes.Echo", "text=hi", "-q", ".text"); out != "hi\n" {
			t.Errorf("by %s micro call printed %q", by, out)
		}
	}
}

// TestByURLWithTLS: wss takes its certificates and token from files.
func TestByURLWithTLS(t *testing.T) { // not parallel: it sets the environment
	ca, cert, key := testserver.Certificates(t)
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("s3cret\n"), 0o600))
	t.Setenv(micro.EnvRegistry, "local://?dir="+filepath.Join(t.TempDir(), "registry"))
	t.Setenv(micro.EnvTransport, "wss:///micro?cert-file="+cert+"&key-file="+key+"&token-file="+token)
	if node := run(t); node.Metadata[registry.MetaTransport] != "wss" {
		t.Errorf("the node's labels are %v", node.Metadata)
	}
	t.Setenv(micro.EnvTransport, "wss:///micro?ca-file="+ca+"&token-file="+token)
	if out := tryout.Command(t, "call", "notes", "Notes.Echo", "text=hi", "-q", ".text"); out != "hi\n" {
		t.Errorf("micro call printed %q", out)
	}
	t.Setenv(micro.EnvTransport, "")
	if out := tryout.Command(t, "call", "notes", "Notes.Echo", "text=hi"); !strings.Contains(out, "certificate signed by unknown authority") {
		t.Errorf("without the authority micro call printed %q", out)
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"ws://host":                    "names no host",
		"ws://u:s3cret@":               "credentials do not belong in a URL",
		"ws://?token=s3cret":           `unknown parameter "token"`,
		"ws://?ca-file=x":              `unknown parameter "ca-file"`,
		"wss://?ca-file=/none":         "ca-file: open /none",
		"wss://?cert-file=/none":       "go together",
		"ws://?insecure=perhaps":       "want true, or nothing",
		"ws://?max-message=0":          "no number of bytes",
		"ws://?token-file=/none":       "token file: open /none",
		"ws://?origins=app.example":    "is no origin",
		"ws:///a%20b?origins=https://": "is no",
	} {
		if _, err := drivers.Transports.Open(t.Context(), url); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
}
