package grpc_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
	"github.com/cb02dfca/micro/pkg/transport/memory"
)

type note struct {
	Text string `json:"text"`
}

var drivers = micro.Drivers{Transports: transport.Openers{"grpc": grpc.Open, "grpcs": grpc.Open}}

// run runs a service named "notes" as the environment says, until the end of the test.
func run(t *testing.T, opts ...micro.Option) registry.Node {
	t.Helper()
	ready := make(chan struct{})
	opts = append([]micro.Option{
		micro.Signals(false), micro.Grace(0), micro.FromEnv(drivers), micro.AfterStart(func(context.Context) error { close(ready); return nil }),
	}, opts...)
	svc, err := micro.New("notes", opts...)
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

// TestByURL: a service whose one transport is gRPC is called by another program, and by the command, that find it, whether they were told
// the transport or not.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(micro.EnvRegistry, "local://?dir="+filepath.Join(t.TempDir(), "registry"))
	t.Setenv(micro.EnvTransport, "grpc://")
	node := run(t)
	if m := node.Metadata; m[registry.MetaTransport] != "grpc" || m[registry.MetaProtocol] != "grpc" {
		t.Errorf("the node's labels are %v", m)
	}
	for name, url := range map[string]string{"the same transport": "grpc://?gzip=true", "none": ""} {
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
}

// TestBesideByURL: gRPC on HTTP's port, by URL and by option, and not where it is taken away.
func TestBesideByURL(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(micro.EnvRegistry, "local://?dir="+filepath.Join(t.TempDir(), "registry"))
	for name, url := range map[string]string{"by URL": "http://?beside=grpc", "by option": ""} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(micro.EnvTransport, url)
			var opts []micro.Option
			if url == "" {
				opts = append(opts, micro.Beside(newTransport(t, grpc.Options{})))
			}
			node := run(t, opts...)
			for _, by := range []string{"grpc://", "http://", ""} {
				if out := tryout.Command(t, "call", "--address", by+node.Address, "notes", "Notes.Echo", "text=hi", "-q", ".text"); out != "hi\n" {
					t.Errorf("by %q micro call printed %q", by, out)
				}
			}
			if out := tryout.Command(t, "stream", "--address", "grpc://"+node.Address, "notes", "Notes.Chat", "text=hi", "-q", ".text"); out != "hi\n" {
				t.Errorf("micro stream printed %q", out)
			}
		})
	}
	set := transport.Openers{"http": transporthttp.OpenBeside(drivers.Transports, "grpc")}
	for url, taken := range map[string]bool{"http": true, "http://?beside=none": false} {
		tr, err := set.Open(t.Context(), url)
		must(t, err)
		addr := serve(t, tr)
		_, err = client.Call[text](t.Context(), newClient(t, newTransport(t, grpc.Options{})), "", "Say.Hello", new(text), client.Address(addr), client.Attempts(1))
		if (err == nil) != taken {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := micro.New("x", micro.Transport(memory.New()), micro.Beside(newTransport(t, grpc.Options{}))); err == nil {
		t.Error("Beside of a transport that has no port")
	}
}

// TestByURLWithTLS: grpcs takes its certificates from files.
func TestByURLWithTLS(t *testing.T) { // not parallel: it sets the environment
	ca, cert, key := testserver.Certificates(t)
	t.Setenv(micro.EnvRegistry, "local://?dir="+filepath.Join(t.TempDir(), "registry"))
	t.Setenv(micro.EnvTransport, "grpcs://?cert-file="+cert+"&key-file="+key)
	if node := run(t); node.Metadata[registry.MetaTransport] != "grpcs" {
		t.Errorf("the node's labels are %v", node.Metadata)
	}
	t.Setenv(micro.EnvTransport, "grpcs://?ca-file="+ca)
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
		"grpc://host":              "names no host",
		"grpc://u:s3cret@":         "credentials do not belong in a URL",
		"grpc://?ca-file=x":        `unknown parameter "ca-file"`,
		"grpcs://?ca-file=/none":   "ca-file: open /none",
		"grpcs://?cert-file=/none": "go together",
		"grpc://?gzip=perhaps":     "want true, or nothing",
		"grpc://?max-message=0":    "no number of bytes",
	} {
		if _, err := drivers.Transports.Open(t.Context(), url); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	for _, o := range []grpc.Options{{MaxMessage: -1}, {MaxConns: -1}, {Silence: -1}} {
		if _, err := grpc.New(o); err == nil || !strings.Contains(err.Error(), "negative") {
			t.Errorf("New(%+v): %v", o, err)
		}
	}
}
