package commands

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// introduction bounds the question what an endpoint takes: a stranger's node may not answer it, and is then called without.
const introduction = 2 * time.Second

// caller makes one call, or opens one stream: it asks a node what the endpoint takes, and calls that node.
type caller struct {
	in     *invocation
	o      callOptions
	begun  time.Time
	client *client.Client
	sticky *sticky         // nil with --address
	nodes  []registry.Node // with --all

	node    registry.Node    // that told, or was to tell
	info    server.Info      // what it told
	known   *server.Endpoint // what it told of the endpoint, or its record has; nil where neither does
	hearsay bool             // known is what its record has
	path    string           // what is sent in place of the endpoint's name, to who speaks gRPC; empty is the name
}

// sticky keeps to one node once it is known: the one that told what the endpoint takes is the one that is called, without
// another look for nodes, and over the same connection. Where it fails, the others have their turn.
type sticky struct {
	selector.Selector
	node atomic.Pointer[registry.Node]
}

func (s *sticky) Select(ctx context.Context, q selector.Query) (registry.Node, func(error), error) {
	n := s.node.Load()
	if n == nil || n.Service != q.Service || slices.Contains(q.Avoid, n.ID) ||
		slices.ContainsFunc(q.Filters, func(takes selector.Filter) bool { return !takes(*n) }) {
		return s.Selector.Select(ctx, q)
	}
	return *n, func(error) {}, nil
}

func (in *invocation) newCaller(ctx context.Context, o callOptions) (*caller, error) {
	c := &caller{in: in, o: o, begun: time.Now()}
	if o.address != "" {
		if err := in.checkAddress(ctx, o.address); err != nil {
			return nil, err
		}
	}
	t, err := in.openTransport(ctx)
	if err != nil {
		return nil, err
	}
	opts := []client.Option{client.WithTransport(t), in.otherTransports(o.address), client.WithTimeout(in.timeout)}
	if len(in.Backends.Codecs) > 0 {
		opts = append(opts, client.WithCodecs(in.Backends.Codecs))
	}
	if o.address == "" {
		r, err := in.openRegistry(ctx)
		if err != nil {
			return nil, err
		}
		if o.endpoint == "" && strings.Contains(o.service, ".") {
			if err := c.splitName(ctx); err != nil {
				return nil, err
			}
		}
		s, err := selector.New(r)
		if err != nil {
			return nil, err
		}
		in.onClose(s)
		c.sticky = &sticky{Selector: s}
		opts = append(opts, client.WithSelector(c.sticky))
	}
	if o.input.form != nil {
		opts = append(opts, client.WithCodecs(codec.Set{o.input.form})) // a stream asks for its codec
	}
	if c.client, err = client.New(opts...); err != nil {
		return nil, err
	}
	in.onClose(c.client)
	return c, nil
}

// splitName reads SERVICE.ENDPOINT where there is no service of that name, and one that it begins with.
func (c *caller) splitName(ctx context.Context) error {
	found, err := c.in.discover(ctx)
	if err != nil {
		return err
	}
	names := found.services()
	if slices.Contains(names, c.o.service) {
		return nil
	}
	var fits []string
	for _, name := range names {
		if strings.HasPrefix(c.o.service, name+".") {
			fits = append(fits, name)
		}
	}
	switch len(fits) {
	case 0:
		return nil
	case 1:
		c.o.service, c.o.endpoint = fits[0], c.o.service[len(fits[0])+1:]
		return nil
	}
	return usage("%q may mean an endpoint of %s: write SERVICE/ENDPOINT", c.o.service, strings.Join(fits, " or of "))
}

// filters are what the command line demands of the node.
func (c *caller) filters() []selector.Filter {
	var f []selector.Filter
	if c.o.version != "" {
		f = append(f, selector.Version(c.o.version))
	}
	if c.o.node != "" {
		f = append(f, selector.ID(c.o.node))
	}
	return f
}

// options are the call options of every call.
func (c *caller) options(more ...client.CallOption) []client.CallOption {
	opts := append(more, client.Timeout(c.in.timeout), client.Filter(c.filters()...))
	if c.o.address != "" {
		opts = append(opts, client.Address(c.o.address))
	}
	return opts
}

// introduce asks a node what it serves. Where the node is a stranger that does not tell, the call is made unchecked; the
// error of a service that cannot be reached is the call's own.
func (c *caller) introduce(ctx context.Context) error {
	if c.o.target != "" || len(c.o.protos.files) > 0 {
		return c.consult(ctx)
	}
	done := c.waiting()
	err := c.askInfo(ctx)
	done()
	var st *status.Error
	remote := errors.As(err, &st) && st.Remote
	switch {
	case err == nil:
		return c.findEndpoint()
	case ctx.Err() != nil, transport.NotSent(err), remote && st.Refused && st.Code != status.ResourceExhausted:
		return err
	case errIs(err, selector.ErrNotFound, selector.ErrNoneMatch, selector.ErrUnavailable, selector.ErrClosed):
		return err
	}
	if told, err := c.consultNode(ctx); told || err != nil {
		return err
	}
	c.in.verbosely("schema    %s does not tell what it serves: %s", or(c.node.ID, "the node"), newCheck(server.Health{}, 0, err).why())
	return c.findEndpoint()
}

func (c *caller) waiting() (done func()) {
	if c.in.verbose { // which tells more
		return func() {}
	}
	return c.in.waiting("%s", strings.TrimSpace(c.o.service+" "+c.o.endpoint))
}

// askInfo prefers nodes whose record names the endpoint: others may be of a version that lacks it.
func (c *caller) askInfo(ctx context.Context) error {
	if len(c.nodes) > 0 {
		return c.askNodes(ctx)
	}
	if c.o.endpoint != "" && !strings.HasPrefix(c.o.endpoint, "Debug.") && c.o.address == "" {
		err := c.askOne(ctx, client.Filter(selector.Endpoint(c.o.endpoint)))
		if !errors.Is(err, selector.ErrNoneMatch) {
			return err
		}
	}
	return c.askOne(ctx)
}

// askNodes asks the nodes of --all in turn until one tells.
func (c *caller) askNodes(ctx context.Context) (err error) {
	for _, n := range c.nodes {
		if err = c.askOne(ctx, client.Address(c.client.AddressOf(n))); err == nil || ctx.Err() != nil {
			return err
		}
	}
	if transport.NotSent(err) {
		return nil // each node's row tells it
	}
	return err
}

func (c *caller) askOne(ctx context.Context, opts ...client.CallOption) error {
	asking, cancel := context.WithTimeout(ctx, min(introduction, c.in.timeout/2))
	defer cancel()
	var took time.Duration
	rsp, err := c.client.Do(asking, &client.Request{Service: c.o.service, Endpoint: server.DebugInfo, ContentType: c.asking(), Body: []byte("{}"),
		Header: c.o.header.metadata}, c.options(append(opts, client.Observe(func(e client.Event) {
		c.observe(e)
		took = e.Elapsed
	}))...)...)
	var ce *client.Error
	if errors.As(err, &ce) {
		ce.Endpoint = c.o.endpoint // whoever reads of it has asked for that
		c.stick(lastNode(ce))
	}
	if err != nil {
		return err
	}
	c.stick(rsp.Node)
	if err := json.Unmarshal(rsp.Body, &c.info); err != nil {
		c.info = server.Info{}
		return err
	}
	c.tell("* schema    "+rsp.Node.ID+" tells what it serves", took)
	return nil
}

// asking is the content type of questions to the node: JSON, but in the envelope of the call itself where it has one around JSON. A server
// that speaks this RPC format alone then says in it that there is no such endpoint.
func (c *caller) asking() string {
	if e, ok := c.o.input.form.(codec.Envelope); ok && e.Values().ContentType() == contentJSON {
		return c.o.input.contentType
	}
	return contentJSON
}

func (c *caller) stick(n registry.Node) {
	if n.ID == "" {
		return
	}
	c.node = n
	if c.sticky != nil && len(c.nodes) == 0 {
		c.sticky.node.Store(&n)
	}
}

// findEndpoint looks the endpoint up in what the node told, or else in its record; the one that a service has need not be
// named.
func (c *caller) findEndpoint() error {
	endpoints := c.info.Endpoints
	if endpoints == nil {
		c.hearsay = true
		endpoints = recordedEndpoints(append([]registry.Node{c.node}, c.nodes...))
	}
	var names []string
	for i, e := range endpoints {
		if e.Name == c.o.endpoint {
			c.known = &endpoints[i]
			return nil
		}
		if !strings.HasPrefix(e.Name, "Debug.") {
			names = append(names, e.Name)
		}
	}
	switch {
	case c.o.endpoint == "" && len(names) == 1:
		c.o.endpoint = names[0]
		return c.findEndpoint()
	case c.o.endpoint == "":
		f := usage("%s has %s: which one?", c.o.service, plural(len(names), "endpoint"))
		if len(names) > 0 && len(names) < 8 {
			f = f.hint("one of", strings.Join(names, ", "))
		}
		return f.hint("all", "micro list endpoints "+c.o.service)
	case c.info.Endpoints != nil && !strings.HasPrefix(c.o.endpoint, "Debug."):
		return noEndpoint(c.o.service, c.info.Version, c.o.endpoint, names)
	}
	return nil // a stranger: it may well have it
}

func (c *caller) kind() server.Kind {
	if c.known == nil || c.known.Kind == "" {
		return server.Unary
	}
	return c.known.Kind
}

// example is a body to fill in.
func (c *caller) example() json.RawMessage {
	if c.known == nil || c.known.Request == nil {
		return json.RawMessage("{}")
	}
	return c.known.Request.Example()
}

// request gives the body, checked.
func (c *caller) request(ctx context.Context) ([]byte, error) {
	body, err := c.in.body(ctx, c.o.input, c.requestSchema())
	if err != nil {
		return nil, err
	}
	return body, c.check(body, "request", "nothing was sent")
}

// explain tells of an error, and of nodes that --node and --version ask for in vain.
func (c *caller) explain(ctx context.Context, err error) error {
	if errors.Is(err, selector.ErrNoneMatch) && c.in.reg != nil {
		nodes := c.in.known(ctx, 0).of(c.o.service)
		if c.o.node != "" {
			return nodeNotFound(c.o.node, nodes)
		}
		return versionNotFound(describeOptions{service: c.o.service, version: c.o.version}, nodes)
	}
	var ce *client.Error
	if errors.As(err, &ce) && c.path != "" && ce.Endpoint == c.path {
		ce.Endpoint = c.o.endpoint // whoever reads of it has asked for that
	}
	if errors.As(err, &ce) && c.o.target != "" {
		return c.in.unreflected(ctx, c.o.target, err)
	}
	if errors.As(err, &ce) && outOfTime(err) {
		return timeoutFailure(ctx, ce, c.in.timeout).because(err)
	}
	if errors.Is(err, selector.ErrUnavailable) {
		return c.in.explainRegistry(registryCause(err))
	}
	return c.in.explain(ctx, err)
}

// outOfTime reports whether our time ran out, which a server may see just before we do.
func outOfTime(err error) bool {
	var st *status.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &st) && st.Remote && st.Code == status.DeadlineExceeded
}

// registryCause takes the registry's own error out of the selector's.
func registryCause(err error) error {
	for e := err; e != nil; {
		switch u := e.(type) {
		case interface{ Unwrap() error }:
			e = u.Unwrap()
		case interface{ Unwrap() []error }:
			all := u.Unwrap()
			if e = all[len(all)-1]; errors.Is(e, registry.ErrUnavailable) && !errors.Is(e, selector.ErrUnavailable) {
				return e
			}
		default:
			return err
		}
	}
	return err
}
