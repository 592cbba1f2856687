package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/hostcheck"
	registryhttp "github.com/cb02dfca/micro/pkg/registry/http"
)

// registryAddress is where a registry server listens by default.
const registryAddress = "127.0.0.1:8000"

func newRegistry() *command {
	return &command{
		name: "registry", group: "Serve", short: "run a registry server, for machines that multicast does not join", max: 0,
		long: "The server keeps its nodes in memory, each for its lease. Services and commands use it with " +
			"--registry http://HOST:PORT or MICRO_REGISTRY. It runs until Ctrl-C.",
		examples: []string{
			"micro registry",
			"micro registry --address 127.0.0.1:0  # any free port",
			"micro registry --address 10.0.0.4:8000 --token-file token  # for other machines",
		},
		flags: []cli.Flag{
			&cli.StringFlag{Name: "address", Usage: "listen on `HOST:PORT`; without HOST on loopback", Value: registryAddress},
			&cli.DurationFlag{Name: "ttl", Usage: "the lease `D` of a node that asks for none", Value: 30 * time.Second},
			&cli.StringFlag{Name: "token-file", Usage: "ask for the token that is in `FILE`"},
			&cli.BoolFlag{Name: "insecure", Usage: "serve other machines without a token: whoever reaches the server may register what he likes"},
		},
		run: runRegistry,
	}
}

// registryValue is the JSON form of what the server says when it listens.
type registryValue struct {
	URL     string `json:"url"`
	Address string `json:"address"`
}

func runRegistry(ctx context.Context, in *invocation) error {
	o := registryhttp.ServerOptions{TTL: in.flags.Duration("ttl"), Insecure: in.flags.Bool("insecure"), Logger: in.logger()}
	if o.TTL < time.Second {
		return usage("flag --ttl: %s is not a second or more", o.TTL)
	}
	var err error
	if o.Token, err = readTokenFile(in.flags.String("token-file")); err != nil {
		return err
	}
	l, err := listenOn(ctx, in.flags.String("address"), "micro registry")
	if err != nil {
		return err
	}
	address := l.Addr().String()
	if !hostcheck.Loopback(address) && o.Token == "" && !o.Insecure {
		_ = l.Close() // nothing was accepted
		return usage("%s is reached by other machines, and without a token whoever reaches it may register what he likes", address).
			hint("with a token", "--token-file FILE").hint("without one", "--insecure")
	}
	s, err := registryhttp.NewServer(o)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	v := registryValue{URL: "http://" + address, Address: address}
	err = in.print(ctx, result{value: v, names: []string{v.URL}, text: func(w io.Writer, c palette) error {
		_, err := fmt.Fprintf(w, "registry on %s\n", c.bold(v.URL))
		return err
	}})
	if err != nil {
		return errors.Join(err, l.Close(), s.Close())
	}
	if !hostcheck.Loopback(address) && o.Token == "" {
		in.warn("warning: --insecure: whoever reaches %s may register what he likes", address)
	}
	in.note("use it: export MICRO_REGISTRY=%s", v.URL)
	return s.Serve(ctx, l)
}

// readTokenFile reads a token; the empty name is none.
func readTokenFile(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", usage("flag --token-file: %s", err).because(err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", usage("flag --token-file: %s is empty", name)
	}
	return token, nil
}

// listenOn takes a TCP address; one without a host is on loopback. what is the command, for the hint.
func listenOn(ctx context.Context, address, what string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usage("flag --address: %q is not HOST:PORT", address).because(err)
	}
	if host == "" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	network := "tcp"
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		network = "tcp4" // 0.0.0.0 would else listen on [::]
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, network, address)
	switch {
	case err == nil:
		return l, nil
	case addressTaken(err):
		return nil, fail(exitFailed, "%s is taken: another program listens there", address).because(err).
			hint("any free port", what+" --address 127.0.0.1:0").hint("is it a registry", "micro list --registry http://"+address)
	case errors.Is(err, os.ErrPermission):
		return nil, fail(exitFailed, "%s may not be listened on: permission denied", address).because(err).
			hint("any free port", what+" --address 127.0.0.1:0")
	}
	return nil, fail(exitFailed, "cannot listen on %s: %s", address, lastCause(err)).because(err)
}

// addressTaken knows the error on Windows too, where it is WSAEADDRINUSE (Winsock error 10048).
func addressTaken(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, syscall.EADDRINUSE) || errors.As(err, &errno) && errno == 10048
}

// lastCause gives the innermost error's text.
func lastCause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// logger writes warnings, and with -v everything, to standard error. Its handler quotes what is not printable.
func (in *invocation) logger() *slog.Logger {
	level := slog.LevelWarn
	switch {
	case in.verbose:
		level = slog.LevelDebug
	case in.quiet:
		level = slog.LevelError
	}
	return slog.New(slog.NewTextHandler(&lockedWriter{in: in}, &slog.HandlerOptions{Level: level}))
}

// lockedWriter writes to standard error beside the notes.
type lockedWriter struct{ in *invocation }

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	return w.in.Stderr.Write(p)
}
