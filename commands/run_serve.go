package commands

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/demo"
	"github.com/cb02dfca/micro/internal/program"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// requestID is the header that names a request, if its caller did.
const requestID = "x-request-id"

// runner serves one plan.
type runner struct {
	in      *invocation
	plan    *serving
	log     *slog.Logger
	version string
	node    string // the id
	timeout time.Duration
	grace   time.Duration

	service  *micro.Service
	life     interface{ Run(context.Context) error } // the service, or the function that it is part of
	programs []*program.Program
	gate     *program.Gate
}

// newRunner makes the service and finds the programs. After an error nothing is open.
func newRunner(ctx context.Context, in *invocation, plan *serving) (_ *runner, err error) {
	r := &runner{in: in, plan: plan, timeout: callTimeout(in), grace: in.flags.Duration("grace"),
		version: or(in.flags.String("version"), "latest"), node: plan.name + "-" + randomHex()}
	if in.flags.IsSet("concurrency") && in.flags.Int("concurrency") == 0 {
		return nil, usage("flag --concurrency: 0 is not 1 or more")
	}
	r.log = slog.New(&runLog{in: in, name: plan.name})
	if r.gate, err = program.NewGate(in.flags.Int("concurrency"), in.flags.Int("queue")); err != nil {
		return nil, usage("%s", trimProgram(err)).because(err)
	}
	if !registry.ValidName(plan.name) {
		return nil, usage("%q cannot be a service's name: want letters, digits, '.', '_' or '-'", plan.name).
			hint("give one", "micro run --name NAME ...")
	}
	if err := r.makeService(ctx); err != nil {
		return nil, err
	}
	if err := r.addHandlers(); err != nil {
		return nil, errors.Join(err, r.service.Close(), r.closePrograms())
	}
	return r, nil
}

func (r *runner) makeService(ctx context.Context) error {
	in := r.in
	reg, err := in.openRegistry(ctx)
	if err != nil {
		return err
	}
	tr, err := in.openTransport(ctx)
	if err != nil {
		return err
	}
	br, err := in.openBroker(ctx)
	if err != nil {
		return err
	}
	// The server's own time for a handler is longer than the programs', so that theirs is the one that callers hear of.
	opts := []micro.Option{
		micro.Registry(reg), micro.Transport(tr), micro.Broker(br), micro.Logger(r.log), micro.Signals(false),
		micro.Version(r.version), micro.NodeID(r.node),
		micro.ShutdownTimeout(r.timeout + time.Second), micro.AfterStart(r.ready),
		micro.ServerOptions(server.HandlerTimeout(r.timeout+time.Second), server.MaxTimeout(max(server.DefaultMaxTimeout, r.timeout))),
	}
	if len(in.Backends.Codecs) > 0 {
		opts = append(opts, micro.ServerOptions(server.Codecs(in.Backends.Codecs)))
	}
	if a := in.flags.String("address"); a != "" {
		address, err := listenAddress(a, reg, tr)
		if err != nil {
			return err
		}
		opts = append(opts, micro.Address(address))
	}
	for _, kv := range in.flags.StringSlice("meta") {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return usage("flag --meta: %q, want KEY=VALUE", kv)
		}
		opts = append(opts, micro.Metadata(k, v))
	}
	if in.flags.Bool("once") {
		f, err := micro.NewFunction(r.plan.name, opts...)
		if err != nil {
			return r.explainRun(err)
		}
		r.service, r.life = f.Service, f
		return nil
	}
	s, err := micro.New(r.plan.name, opts...)
	if err != nil {
		return r.explainRun(err)
	}
	r.service, r.life = s, s
	return nil
}

// listenAddress checks an address. One without a host is loopback, or the interface that the registry announces: a
// service is not opened to a network by leaving something out. With a transport of names it is one, or :0 for one of its own making.
func listenAddress(a string, reg registry.Registry, tr transport.Transport) (string, error) {
	if n, ok := tr.(transport.Named); ok {
		if a == ":0" {
			return a, nil
		}
		return a, badName(n, a)
	}
	host, port, err := net.SplitHostPort(a)
	if n, numErr := strconv.ParseUint(port, 10, 16); err != nil || numErr != nil || n > 65535 || strings.Contains(host, "@") {
		return "", usage("flag --address: %q, want HOST:PORT, such as 127.0.0.1:8080 or :0", redacted(a))
	}
	if host == "" {
		host = "127.0.0.1"
		if h, ok := reg.(registry.Hoster); ok {
			if name, ok := h.Host(); ok {
				host = name
			}
		}
	}
	return net.JoinHostPort(host, port), nil
}

// addHandlers registers what the plan serves.
func (r *runner) addHandlers() error {
	switch r.plan.builtin {
	case "greeter":
		if err := demo.Greeter(r.service, r.log); err != nil {
			return r.explainRun(err)
		}
	case "echo":
		if err := demo.Echo(r.service); err != nil {
			return r.explainRun(err)
		}
	}
	for _, h := range r.plan.handlers {
		p, err := r.newProgram(h)
		if err != nil {
			return err
		}
		r.programs = append(r.programs, p)
		if err := r.addHandler(h, p); err != nil {
			return usage("%s", trimPackage(err.Error())).because(err)
		}
	}
	return nil
}

func (r *runner) newProgram(h handler) (*program.Program, error) {
	env, err := r.environ()
	if err != nil {
		return nil, err
	}
	var ours []string
	if r.in.Environ != nil {
		ours = r.in.Environ()
	}
	p, err := program.New(program.Options{
		Path: h.argv[0], Args: h.argv[1:], Env: env, Environ: ours,
		Service: r.plan.name, Version: r.version, Node: r.node,
		Timeout: r.timeout, Grace: r.grace, Gate: r.gate, HideStderr: r.in.flags.Bool("no-stderr-detail"), Logger: r.log,
	})
	if err != nil {
		return nil, explainProgram(h.argv[0], err)
	}
	return p, nil
}

// environ reads --env. A name alone passes our own variable on, where we have it.
func (r *runner) environ() ([]string, error) {
	var env []string
	for _, kv := range r.in.flags.StringSlice("env") {
		if !strings.Contains(kv, "=") {
			value, ok := r.in.Env(kv)
			if !ok {
				continue
			}
			kv += "=" + value
		}
		env = append(env, kv)
	}
	return env, nil
}

// addHandler puts a program behind an endpoint or a topic.
func (r *runner) addHandler(h handler, p *program.Program) error {
	if h.topic != "" {
		return r.service.Server().Subscribe(h.topic, r.event(p), broker.Timeout(r.timeout+time.Second), broker.Concurrency(broker.DefaultConcurrency))
	}
	e := server.Endpoint{Name: h.endpoint, Doc: "runs " + filepath.Base(h.argv[0]), Request: new(schema.Schema), Response: new(schema.Schema)}
	for _, s := range []struct {
		raw []byte
		to  **schema.Schema
	}{{h.entry.Request, &e.Request}, {h.entry.Response, &e.Response}} {
		if s.raw == nil {
			continue
		}
		parsed, err := schema.Parse(s.raw)
		if err != nil {
			return fmt.Errorf("schema of %s: %w", h.endpoint, err)
		}
		*s.to = parsed
	}
	return r.service.Server().Handle(e, r.call(p))
}

// call is the handler of an endpoint.
func (r *runner) call(p *program.Program) server.Handler {
	return func(ctx context.Context, c *server.Call) error {
		id := idOf(c)
		rsp, err := r.runProgram(ctx, p, c, program.Request{Endpoint: c.Endpoint(), ID: id})
		if err != nil {
			return err
		}
		if err := c.SetHeader(requestID, id); err != nil {
			r.log.Warn("request id", "error", err)
		}
		return c.SendRaw(rsp.ContentType, rsp.Body)
	}
}

// event is the handler of a topic.
func (r *runner) event(p *program.Program) server.Handler {
	return func(ctx context.Context, c *server.Call) error {
		_, err := r.runProgram(ctx, p, c, program.Request{Topic: c.Topic(), ID: or(c.Message().ID, idOf(c))})
		return err
	}
}

// runProgram runs p for what c received, and logs what the caller is told when it fails.
func (r *runner) runProgram(ctx context.Context, p *program.Program, c *server.Call, req program.Request) (program.Response, error) {
	body, err := c.RecvRaw()
	if err != nil {
		return program.Response{}, err
	}
	req.Body, req.Caller, req.ContentType, req.Header = body, c.Remote(), c.ContentType(), c.Header()
	start := r.in.Now()
	rsp, err := p.Run(ctx, req)
	level, text := slog.LevelDebug, "served"
	switch {
	case status.IsRefused(err):
		text = err.Error()
	case err != nil:
		level, text = slog.LevelWarn, err.Error()
	}
	r.log.LogAttrs(ctx, level, text, slog.String("endpoint", req.Endpoint), slog.String("topic", req.Topic), slog.String("request", req.ID),
		slog.Duration("took", r.in.Now().Sub(start).Round(10*time.Microsecond)))
	return rsp, err
}

// idOf gives the request's name: its caller's, if that is short and plain, else a new one.
func idOf(c *server.Call) string {
	if id := c.Header().Get(requestID); registry.ValidName(id) && len(id) <= 64 {
		return id
	}
	return randomHex()
}

func randomHex() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// run serves until ctx ends, or the one call of --once is over.
func (r *runner) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		switch n, _ := r.gate.Load(); n {
		case 0:
		case 1:
			r.in.warn("stopping when 1 running call has ended; Ctrl-C again leaves at once")
		default:
			r.in.warn("stopping when %d running calls have ended; Ctrl-C again leaves at once", n)
		}
	})()
	defer beforeLeaving(ctx, func() {
		for _, p := range r.programs {
			p.Kill()
		}
	})()
	err := r.life.Run(ctx)
	if closeErr := r.closePrograms(); err == nil && closeErr != nil {
		r.in.warn("warning: handlers that did not end were killed")
	}
	if err != nil {
		return r.explainRun(err)
	}
	return nil
}

// closePrograms ends what still runs: what the drain did not wait for has been told to go, and gets its grace.
func (r *runner) closePrograms() error {
	ctx, cancel := context.WithTimeout(context.Background(), r.grace+time.Second)
	defer cancel()
	var errs []error
	for _, p := range r.programs {
		errs = append(errs, p.Close(ctx))
	}
	return errors.Join(errs...)
}
