package commands

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/hostcheck"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
)

// registryAddress is where a registry server listens by default.
const registryAddress = "127.0.0.1:8000"

func newRegistry() *command {
	return &command{
		name: "registry", group: "Serve", short: "run a registry server, for machines that multicast does not join", max: 0,
		long: "The server keeps its nodes in a folder, each for its lease: started anew it has them. Services and commands use it with " +
			"--registry http://HOST:PORT or MICRO_REGISTRY. It runs until Ctrl-C. A browser shows the nodes, live, at its address.\n\n" +
			"With --store the nodes stand in another registry, a cluster's, and the server keeps none: any number of copies may run. " +
			"With --mdns-bridge the services that this machine finds by multicast show as well, to those who cannot hear it.\n\n" +
			"Beyond loopback it asks for a token, which is in FILE or in MICRO_REGISTRY_TOKEN, or for certificates.",
		examples: []string{
			"micro registry",
			"micro registry --address 127.0.0.1:0 --memory  # any free port, and nothing is kept",
			"micro registry --address 10.0.0.4:8000 --token-file token --tls-cert cert.pem --tls-key key.pem  # for other machines",
			"micro registry --store etcd://10.0.0.7,10.0.0.8,10.0.0.9  # the nodes stand in etcd; start as many as you like",
			"micro registry list  # what is registered, in the registry that --registry names",
		},
		flags: registryFlags(),
		exits: []exitCode{exitUnavailable},
		run:   runRegistry,
		sub: []*command{
			newRegistryList(), newRegistryGet(), newRegistryWatch(), newRegistryRegister(), newRegistryDeregister(),
			newRegistryExport(), newRegistryImport(), newRegistryPrune(),
		},
	}
}

func registryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "address", Usage: "listen on `HOST:PORT`; without HOST on loopback", Value: registryAddress},
		&cli.DurationFlag{Name: "ttl", Usage: "the lease `D` of a node that asks for none", Value: 30 * time.Second},
		&cli.StringFlag{Name: "data", Usage: "keep the nodes in the folder `DIR` (default: micro/registry in $XDG_STATE_HOME or ~/.local/state)"},
		&cli.BoolFlag{Name: "memory", Usage: "keep the nodes in memory alone: started anew the server is empty"},
		&cli.StringFlag{Name: "store", Usage: "keep the nodes in the registry `URL`, such as etcd://HOST,HOST, and none here"},
		&cli.BoolFlag{Name: "mdns-bridge", Usage: "show what mDNS finds on this machine and its networks, too"},
		&cli.BoolFlag{Name: "recover", Usage: "take what can be read of a damaged file of nodes, which is kept beside it"},
		&cli.StringFlag{Name: "token-file", Usage: "ask for the token that is in `FILE` [$MICRO_REGISTRY_TOKEN]"},
		&cli.StringFlag{Name: "tls-cert", Usage: "serve TLS with the certificate in `FILE`, PEM"},
		&cli.StringFlag{Name: "tls-key", Usage: "and its key in `FILE`, PEM"},
		&cli.StringFlag{Name: "tls-client-ca", Usage: "let in whoever has a certificate of the authorities in `FILE`, PEM, and nobody else"},
		&cli.BoolFlag{Name: "insecure", Usage: "serve other machines without a token: whoever reaches the server may register what he likes"},
	}
}

// registryValue is the JSON form of what the server says when it listens.
type registryValue struct {
	URL     string `json:"url"`
	Address string `json:"address"`
	Data    string `json:"data,omitempty"`  // the folder where nodes are kept
	Store   string `json:"store,omitempty"` // or the registry
	Nodes   int    `json:"nodes,omitempty"` // that were there
}

func runRegistry(ctx context.Context, in *invocation) error {
	o, secure, err := registryOptions(in)
	if err != nil {
		return err
	}
	l, err := listenOn(ctx, in.flags.String("address"), "micro registry")
	if err != nil {
		return err
	}
	address := l.Addr().String()
	if !hostcheck.Loopback(address) && o.Token == "" && !o.ClientCerts && !o.Insecure {
		_ = l.Close() // nothing was accepted
		return usage("%s is reached by other machines, and without a token whoever reaches it may register what he likes", address).
			hint("with a token", "--token-file FILE").hint("with certificates", "--tls-client-ca FILE").hint("without one", "--insecure")
	}
	if err := openBehind(ctx, in, &o); err != nil {
		return errors.Join(err, l.Close())
	}
	s, err := newRegistryServer(in, o)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	v := registryValue{URL: "http://" + address, Address: address, Data: o.Data, Nodes: s.Health().Nodes, Store: redacted(in.flags.String("store"))}
	if secure != nil {
		v.URL = "https://" + address
		l = tls.NewListener(l, secure)
	}
	err = in.print(ctx, result{value: v, names: []string{v.URL}, text: func(w io.Writer, c palette) error {
		_, err := fmt.Fprintf(w, "registry on %s\n", c.bold(v.URL))
		return err
	}})
	if err != nil {
		return errors.Join(err, l.Close(), s.Close())
	}
	in.tellRegistry(v, o, secure != nil)
	return s.Serve(ctx, l)
}

// tellRegistry says what is to be known of a server that listens.
func (in *invocation) tellRegistry(v registryValue, o registryserver.Options, secure bool) {
	switch open := !hostcheck.Loopback(v.Address); {
	case open && o.Token == "" && !o.ClientCerts:
		in.warn("warning: --insecure: whoever reaches %s may register what he likes", v.Address)
	case open && !secure:
		in.warn("warning: without --tls-cert the token crosses the network in the clear")
	}
	switch {
	case v.Store != "":
		in.note("nodes are kept in %s, which has %d", v.Store, v.Nodes)
	case o.Data != "":
		in.note("nodes are kept in %s, which has %d", o.Data, v.Nodes)
	}
	in.note("use it: export MICRO_REGISTRY=%s", v.URL)
}

// registryOptions reads the flags. secure is nil without TLS.
func registryOptions(in *invocation) (o registryserver.Options, secure *tls.Config, err error) {
	o = registryserver.Options{TTL: in.flags.Duration("ttl"), Insecure: in.flags.Bool("insecure"), Logger: in.logger()}
	if o.TTL < time.Second {
		return o, nil, usage("flag --ttl: %s is not a second or more", o.TTL)
	}
	if o.Token, err = readTokenFile(in.flags.String("token-file")); err != nil {
		return o, nil, err
	}
	if o.Token == "" {
		o.Token = strings.TrimSpace(in.env(envRegistryToken))
	}
	if len(o.Token) > 4096 || strings.ContainsFunc(o.Token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return o, nil, usage("the token, of --token-file or %s, holds white space or what is not ASCII, or is longer than 4096 bytes", envRegistryToken).
			hint("make one", "openssl rand -hex 32 > token; chmod 600 token")
	}
	if secure, err = registryTLS(in.flags.String("tls-cert"), in.flags.String("tls-key"), in.flags.String("tls-client-ca")); err != nil {
		return o, nil, err
	}
	o.ClientCerts = secure != nil && secure.ClientCAs != nil
	o.Data, err = registryFolder(in)
	return o, secure, err
}

// registryFolder is where the nodes are kept; empty is nowhere.
func registryFolder(in *invocation) (string, error) {
	dir, memory := in.flags.String("data"), in.flags.Bool("memory")
	switch {
	case in.flags.String("store") != "" && (dir != "" || memory || in.flags.Bool("recover")):
		return "", usage("flag --store goes with none of --data, --memory and --recover: the nodes stand there")
	case in.flags.String("store") != "":
		return "", nil
	case dir != "" && memory:
		return "", usage("flags --data and --memory do not go together")
	case memory && in.flags.Bool("recover"):
		return "", usage("flags --recover and --memory do not go together")
	case memory || dir != "":
		return dir, nil
	}
	if state := in.env("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "micro", "registry"), nil
	}
	if local := in.env("LocalAppData"); runtime.GOOS == "windows" && local != "" {
		return filepath.Join(local, "micro", "registry-server"), nil
	}
	if home := in.env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "micro", "registry"), nil
	}
	return "", usage("there is no folder to keep nodes in: HOME is not set").hint("choose one", "--data DIR").hint("without one", "--memory")
}

// notBehind are registries that are this machine's, and so cannot stand behind a server.
var notBehind = []string{"default", "local", "mdns", "memory"}

// openBehind opens the registries that the flags name.
func openBehind(ctx context.Context, in *invocation, o *registryserver.Options) error {
	if in.flags.Bool("mdns-bridge") {
		const found = "mdns?scope=lan"
		r, err := in.Backends.Registries.Open(ctx, found)
		if err != nil {
			return in.openFailed("registry", found, err)
		}
		in.onClose(r)
		o.Bridge = r
	}
	name := in.flags.String("store")
	if name == "" {
		return nil
	}
	u, err := url.Parse(name)
	if err != nil || u.Scheme == "" || slices.Contains(notBehind, u.Scheme) {
		return usage("flag --store: %q: want the URL of a cluster's registry, such as etcd://HOST,HOST", redacted(name))
	}
	if o.Registry, err = in.Backends.Registries.Open(ctx, name); err != nil {
		return in.openFailed("registry", name, err)
	}
	// It is not closed: that would withdraw the nodes, whose owners go to another copy. The hosts may stand in another order elsewhere.
	o.RegistryName = u.Scheme + "://" + u.Path
	return nil
}

// newRegistryServer makes the server, and says what to do about a folder that cannot be used.
func newRegistryServer(in *invocation, o registryserver.Options) (*registryserver.Server, error) {
	if in.flags.Bool("recover") {
		if err := in.recoverRegistry(o); err != nil {
			return nil, err
		}
	}
	s, err := registryserver.New(o)
	var damage *registryserver.DamageError
	switch {
	case err == nil:
		return s, nil
	case o.Registry != nil:
		return nil, errors.Join(fail(exitFailed, "--store %s: %s", redacted(in.flags.String("store")), trimPackage(err.Error())).because(err), o.Registry.Close())
	case errors.As(err, &damage):
		return nil, fail(exitFailed, "%s", trimPackage(err.Error())).because(err).
			hint("take what can be read, and keep the file", "--recover").hint("begin anew elsewhere", "--data DIR")
	case errors.Is(err, registryserver.ErrLocked):
		return nil, fail(exitFailed, "%s", trimPackage(err.Error())).because(err).hint("another folder", "--data DIR").hint("none", "--memory")
	}
	return nil, fail(exitFailed, "%s", trimPackage(err.Error())).because(err).hint("another folder", "--data DIR").hint("none", "--memory")
}

// recoverRegistry salvages a damaged file. Where there is nothing wrong with it, it is left as it is.
func (in *invocation) recoverRegistry(o registryserver.Options) error {
	s, err := registryserver.New(o)
	if err == nil {
		in.warn("--recover: the file is whole, and stays as it is")
		return s.Close()
	}
	var damage *registryserver.DamageError
	if !errors.As(err, &damage) {
		return nil // what it is, is told when the server is made
	}
	n, kept, err := registryserver.Salvage(o.Data)
	if err != nil {
		return fail(exitFailed, "--recover: %s", trimPackage(err.Error())).because(err)
	}
	in.warn("--recover: %s; nodes that could be read: %d; the damaged file is %s; what else it held may be lost until its services register again", trimPackage(damage.Error()), n, kept)
	return nil
}

// registryTLS reads what a server needs for TLS; nil where no file is named.
func registryTLS(cert, key, clients string) (*tls.Config, error) {
	switch {
	case cert == "" && key == "" && clients == "":
		return nil, nil
	case cert == "" || key == "":
		return nil, usage("flags --tls-cert and --tls-key go together")
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, usage("flags --tls-cert, --tls-key: %s", err).because(err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if clients == "" {
		return c, nil
	}
	pem, err := os.ReadFile(clients)
	if err != nil {
		return nil, usage("flag --tls-client-ca: %s", err).because(err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, usage("flag --tls-client-ca: %s holds no certificate", clients)
	}
	return c, nil
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
	if err != nil || strings.Contains(host, "@") {
		return nil, usage("flag --address: %q is not HOST:PORT", redacted(address)).because(err)
	}
	if host == "" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, hostcheck.Network(address), address)
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
