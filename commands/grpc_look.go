package commands

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cb02dfca/micro/pkg/client"
	codecproto "github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// This file has what list, health and stats do with servers of gRPC.

// targetClient gives a client for a server that is named by its URL.
func (in *invocation) targetClient(ctx context.Context, target string) (*client.Client, error) {
	if err := in.checkAddress(ctx, target); err != nil {
		return nil, err
	}
	t, err := in.openTransport(ctx)
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.WithTransport(t), in.otherTransports(target), client.WithTimeout(in.timeout))
	if err != nil {
		return nil, err
	}
	in.onClose(c)
	return c, nil
}

// targetNode gives the server that is the first argument, where that is a URL, as a node without a record, and has it dialled. What follows
// the URL, after a slash or as the second argument, is the service: it may be none.
func (in *invocation) targetNode(ctx context.Context) (n registry.Node, ok bool, err error) {
	if len(in.args) == 0 || !isTarget(in.args[0]) {
		return n, false, nil
	}
	target, rest, err := readTarget(in.args)
	switch {
	case err != nil:
		return n, true, err
	case len(rest) > 1:
		return n, true, in.oneTooMany(rest[1])
	case in.flags.String("node") != "":
		return n, true, usage("flag --node is for services in a registry, not for %s", target)
	}
	if len(rest) == 1 {
		n.Service = rest[0]
	}
	n.ID, n.Address = target, target
	if in.dial == nil {
		in.dial, err = in.targetClient(ctx, target)
	}
	return n, true, err
}

// The states of grpc.health.v1's HealthCheckResponse.
const (
	grpcServing        = 1
	grpcNotServing     = 2
	grpcServiceUnknown = 3
)

// askGRPCHealth asks a server how service is by grpc.health.v1; the server as a whole where that is empty.
func (in *invocation) askGRPCHealth(ctx context.Context, c *client.Client, address, service string) check {
	var body []byte
	if service != "" {
		body = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), service)
	}
	begun := in.Now()
	rsp, err := c.Do(ctx, &client.Request{Endpoint: "grpc.health.v1.Health/Check", ContentType: codecproto.ContentType, Body: body},
		client.Address(address), client.Timeout(in.timeout))
	took := in.Now().Sub(begun)
	var st *status.Error
	switch {
	case err == nil:
		return grpcCheck(rsp.Body, service, took)
	case errors.As(err, &st) && st.Code == status.NotFound:
		return check{status: unknown, detail: "it knows no service " + service, rtt: took}
	case errors.As(err, &st) && lacking(st):
		return check{status: alive, detail: "it answers, and has no grpc.health.v1.Health", rtt: took}
	}
	return newCheck(server.Health{}, took, err)
}

// grpcCheck reads a HealthCheckResponse.
func grpcCheck(answer []byte, service string, took time.Duration) check {
	state := uint64(0)
	for len(answer) > 0 {
		field, kind, n := protowire.ConsumeTag(answer)
		if n < 0 {
			break
		}
		if answer = answer[n:]; field == 1 && kind == protowire.VarintType {
			state, _ = protowire.ConsumeVarint(answer)
		}
		if n = protowire.ConsumeFieldValue(field, kind, answer); n < 0 {
			break
		}
		answer = answer[n:]
	}
	switch state {
	case grpcServing:
		return check{status: server.HealthOK, rtt: took}
	case grpcNotServing:
		return check{status: server.HealthFailing, detail: "NOT_SERVING", rtt: took}
	case grpcServiceUnknown:
		return check{status: unknown, detail: "it knows no service " + service, rtt: took}
	}
	return check{status: unknown, detail: "UNKNOWN", rtt: took}
}

// targetNodes gives what a server tells by reflection as nodes, one for each service: for listings.
func (in *invocation) targetNodes(ctx context.Context, target string) ([]registry.Node, error) {
	cat, err := in.targetCatalog(ctx, describeOptions{service: target})
	if err != nil {
		return nil, err
	}
	labels := map[string]string{registry.MetaProtocol: "grpc", registry.MetaTransport: "grpc"}
	var nodes []registry.Node
	for _, name := range cat.services {
		sd, err := cat.find(name)
		if err != nil {
			return nil, in.unreflected(ctx, target, err)
		}
		n := registry.Node{ID: target, Service: name, Address: target, Metadata: labels, Endpoints: []registry.Endpoint{}}
		for i := range sd.Methods().Len() {
			e := endpointOf(sd.Methods().Get(i), string(sd.Methods().Get(i).Name()))
			n.Endpoints = append(n.Endpoints, registry.Endpoint{Name: e.Name, Metadata: map[string]string{"kind": string(e.Kind)},
				Request: &registry.Value{Type: e.RequestType}, Response: &registry.Value{Type: e.ResponseType}})
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// listTarget lists the services of a server, or their methods.
func (in *invocation) listTarget(ctx context.Context, o listOptions) error {
	switch {
	case o.kind != "services" && o.kind != "endpoints":
		return usage("%s tells of services and endpoints, and of no %s", o.target, o.kind).hint("try", "micro list services "+o.target)
	case o.watch || o.health || o.filter.version != "" || len(o.filter.labels) > 0:
		return usage("flags --watch, --health, --version and --meta are for services in a registry, not for %s", o.target)
	}
	ctx, cancel := in.deadline(ctx)
	defer cancel()
	nodes, err := in.targetNodes(ctx, o.target)
	if err != nil {
		return err
	}
	rows, err := o.rows(ctx, in, nodes)
	if err != nil {
		return err
	}
	if len(rows) == 0 && o.pattern != "" && !isGlob(o.pattern) {
		return fail(exitNotFound, "%s tells of no service %q", o.target, o.pattern).hint("all", "micro list services "+o.target)
	}
	if len(rows) == 0 {
		in.note("%s tells of no such service", o.target)
	}
	return in.print(ctx, listResult(o, rows))
}

// oneTooMany is the failure of an argument that a command takes after the URL of a server alone.
func (in *invocation) oneTooMany(arg string) *failure {
	where := "micro " + in.cmd.name
	return usage("%s: one argument too many: %q", where, clipText(arg)).hint("usage", where+" "+in.cmd.args).hint("more", where+" --help")
}
