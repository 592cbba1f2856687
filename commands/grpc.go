package commands

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc/reflection"
)

// This file has what commands do with servers of gRPC: those that a command names by a URL in place of a service, "grpc://HOST:PORT",
// and the nodes whose record says that they speak it.

// isTarget reports whether an argument is the URL of a server of gRPC.
func isTarget(word string) bool {
	return strings.HasPrefix(word, "grpc://") || strings.HasPrefix(word, "grpcs://")
}

// readTarget takes the URL off the arguments, and gives what follows it: a path in the URL is the first of that.
func readTarget(args []string) (target string, rest []string, err error) {
	scheme, place, _ := strings.Cut(args[0], "://")
	place, path, _ := strings.Cut(place, "/")
	rest = args[1:]
	if path = strings.Trim(path, "/"); path != "" {
		rest = append([]string{path}, rest...)
	}
	target = scheme + "://" + place
	switch {
	case strings.ContainsAny(args[0], "@?#"):
		return "", nil, usage("%q is not %s://HOST:PORT: credentials and parameters do not belong there", redacted(args[0]), scheme)
	case !isHostPort(place):
		return "", nil, usage("%q is not %s://HOST:PORT", args[0], scheme)
	}
	return target, rest, nil
}

// grpcWords takes a method's name off words: SERVICE METHOD, SERVICE/METHOD or SERVICE.METHOD.
func grpcWords(words []string) (name string, rest []string) {
	if len(words) == 0 || !looksLikeName(words[0]) {
		return "", words
	}
	name, rest = words[0], words[1:]
	if !strings.Contains(name, "/") && len(rest) > 0 && looksLikeName(rest[0]) {
		return name + "/" + rest[0], rest[1:]
	}
	return name, rest
}

// speaksGRPC reports whether a node is called by gRPC.
func speaksGRPC(n registry.Node) bool {
	return n.Metadata[registry.MetaProtocol] == "grpc" || isTarget(n.Metadata[registry.MetaTransport]+"://")
}

// consult finds what is called in descriptors, before anything is sent.
func (c *caller) consult(ctx context.Context) error {
	byPath, err := c.byPath(ctx)
	if err != nil {
		return err
	}
	var cat *catalog
	if len(c.o.protos.files) > 0 {
		cat, err = c.o.protos.catalog(ctx)
	} else {
		done := c.waiting()
		cat, err = c.in.reflected(ctx, c.client, c.o.address)
		done()
		err = c.in.unreflected(ctx, c.o.address, err)
	}
	if err != nil {
		return err
	}
	m, err := cat.method(c.o.endpoint)
	if err != nil {
		return c.in.unreflected(ctx, c.o.address, err)
	}
	c.adopt(m, byPath)
	return nil
}

// byPath reports whether what is called is named by the path of gRPC, or by the short name that our own endpoints have.
func (c *caller) byPath(ctx context.Context) (bool, error) {
	if c.o.target != "" || isTarget(c.o.address) {
		return true, nil
	}
	if c.o.address != "" {
		return false, nil
	}
	found, err := c.in.discover(ctx)
	if err != nil {
		return false, err
	}
	nodes := found.of(c.o.service)
	return len(nodes) > 0 && speaksGRPC(nodes[0]), nil
}

// adopt makes a method what is called.
func (c *caller) adopt(m protoreflect.MethodDescriptor, byPath bool) {
	c.o.endpoint = string(m.Parent().Name()) + "." + string(m.Name())
	if byPath {
		c.path = methodPath(m)
	}
	if c.o.target != "" {
		c.o.service, c.o.endpoint = string(m.Parent().FullName()), string(m.Name())
	}
	e := endpointOf(m, c.o.endpoint)
	c.known = &e
	if c.o.header.contentType == "" {
		c.in.described = formOf(m)
		c.o.input.form, c.o.input.contentType = c.in.described, c.in.described.ContentType()
	}
}

// consultNode asks a node that does not tell by itself what it serves, where it speaks gRPC. It reports whether that told.
func (c *caller) consultNode(ctx context.Context) (bool, error) {
	if !speaksGRPC(c.node) {
		return false, nil
	}
	cat, err := c.in.reflected(ctx, c.client, c.client.AddressOf(c.node))
	if err != nil {
		c.in.verbosely("schema    %s has no reflection: %s", c.node.ID, dialReason(err))
		return false, nil // its record may do
	}
	m, err := cat.method(c.o.endpoint)
	if err != nil {
		return false, err
	}
	c.adopt(m, true)
	return true, nil
}

// unreflected tells of an error of reflection.
func (in *invocation) unreflected(ctx context.Context, target string, err error) error {
	var f *failure
	var ce *client.Error
	switch {
	case err == nil, errors.As(err, &f), interrupted(ctx):
		return err
	case errors.Is(err, reflection.ErrNone):
		return usage("%s does not tell what it serves: it has no reflection", target).because(err).hint("tell it", "--proto FILE")
	case errors.As(err, &ce):
		return in.targetFailed(ctx, target, ce).because(err)
	case outOfTime(err):
		return fail(exitTimeout, "%s: no answer within %s", target, in.timeout).because(err).hint("more time", "--timeout 30s")
	}
	return fail(exitRemote, "%s: %s", target, strings.TrimPrefix(dialReason(err), "reflection: ")).because(err)
}

// targetFailed tells of a call to a server that was named by its URL.
func (in *invocation) targetFailed(ctx context.Context, target string, ce *client.Error) *failure {
	var st *status.Error
	switch remote := errors.As(ce.Err, &st) && st.Remote; {
	case outOfTime(ce.Err):
		return timeoutFailure(ctx, ce, in.timeout)
	case transport.NotSent(ce.Err) || remote && st.Refused:
		return fail(exitUnavailable, "%s is not answering: %s", target, strings.TrimPrefix(attemptReason(ce.Err), "transport: "))
	case remote:
		return in.remoteFailure(ce, st)
	}
	return fail(codeOf(ce.Err), "%s: %s", target, dialReason(ce.Err))
}

// describeTarget describes a server that is named by its URL.
func (in *invocation) describeTarget(ctx context.Context, o describeOptions) (*description, error) {
	cat, err := in.targetCatalog(ctx, o)
	if err != nil {
		return nil, err
	}
	methods, err := cat.methods(o.endpoint)
	if err != nil {
		return nil, in.unreflected(ctx, o.service, err)
	}
	v := versionDescription{Source: cat.told, Nodes: []nodeValue{}, Endpoints: endpointsBy(methods, methodPath)}
	return &description{Service: o.service, Versions: []versionDescription{v}}, nil
}

func (in *invocation) targetCatalog(ctx context.Context, o describeOptions) (*catalog, error) {
	if len(o.protos.files) > 0 {
		return o.protos.catalog(ctx)
	}
	cl, err := in.targetClient(ctx, o.service)
	if err != nil {
		return nil, err
	}
	done := in.waiting("%s", o.service)
	defer done()
	cat, err := in.reflected(ctx, cl, o.service)
	return cat, in.unreflected(ctx, o.service, err)
}

// describeByFiles has .proto files tell what nodes serve.
func (in *invocation) describeByFiles(ctx context.Context, v *versionDescription, nodes []registry.Node, protos protoFiles) error {
	cat, err := protos.catalog(ctx)
	if err != nil {
		return err
	}
	methods, err := cat.methods("")
	name := methodPath
	if !speaksGRPC(nodes[0]) {
		name = func(m protoreflect.MethodDescriptor) string {
			return string(m.Parent().Name()) + "." + string(m.Name())
		}
	}
	v.Source, v.Endpoints = cat.told, endpointsBy(methods, name)
	return err
}

// catalogEndpoints gives what descriptors tell of a node that does not tell itself: nil where there are none.
func (in *invocation) catalogEndpoints(ctx context.Context, cl *client.Client, nodes []registry.Node) []server.Endpoint {
	for i, n := range nodes {
		if i == describeTries || ctx.Err() != nil {
			break
		}
		if !speaksGRPC(n) {
			continue
		}
		cat, err := in.reflected(ctx, cl, cl.AddressOf(n))
		if err != nil {
			in.verbosely("node %s has no reflection: %s", n.ID, dialReason(err))
			continue
		}
		if methods, err := cat.methods(""); err == nil {
			return endpointsBy(methods, methodPath)
		}
	}
	return nil
}

func endpointsBy(methods []protoreflect.MethodDescriptor, name func(protoreflect.MethodDescriptor) string) []server.Endpoint {
	out := []server.Endpoint{}
	for _, m := range methods {
		out = append(out, endpointOf(m, name(m)))
	}
	return out
}
