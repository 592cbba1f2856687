package commands

import (
	"context"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/pkg/registry"
)

func newHealth() *command {
	return &command{
		name: "health", group: "Discover", args: "[SERVICE | grpc://HOST:PORT [SERVICE]]", short: "ask every node of a service how it is", max: 2,
		long: "Without SERVICE the nodes of all services are asked. A server of gRPC is asked by grpc.health.v1, as a whole where no service is " +
			"given. The exit code is 8 if one of them is neither ok nor alive, as is one that answers and cannot say how it is.",
		examples: []string{
			"micro health greeter",
			"micro health greeter --wait 30s  # until all are ok",
			"micro health greeter --node greeter-7f3a91c2",
			"micro health grpc://127.0.0.1:50051  # any server of gRPC",
		},
		flags: []cli.Flag{
			&cli.StringFlag{Name: "node", Usage: "only the node with this `ID`"},
			&cli.DurationFlag{Name: "wait", Usage: "ask again until all are ok, for `D` at most"},
		},
		exits: []exitCode{exitNotFound, exitUnavailable, exitTimeout, exitCheck},
		run:   runHealth,
	}
}

// healthPause is the time between two rounds of --wait.
const healthPause = 250 * time.Millisecond

// healthValue is the JSON form of a node's health.
type healthValue struct {
	Node    string   `json:"node"`
	Service string   `json:"service"`
	Version string   `json:"version,omitempty"`
	Address string   `json:"address"`
	OK      bool     `json:"ok"`
	Status  string   `json:"status"`
	Detail  string   `json:"detail,omitempty"`
	MS      *float64 `json:"ms,omitempty"`
}

func runHealth(ctx context.Context, in *invocation) error {
	wait := in.flags.Duration("wait")
	if wait > 0 { // the time for all is then that of the waiting, and --timeout that of a question
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait+in.timeout)
		defer cancel()
	} else {
		var cancel context.CancelFunc
		ctx, cancel = in.deadline(ctx)
		defer cancel()
	}
	until := in.Now().Add(wait)
	for {
		nodes, checks, err := in.healthRound(ctx)
		last := !in.Now().Before(until)
		switch {
		case err != nil && (last || codeOf(err) != exitNotFound):
			return err
		case err == nil && (last || allHealthy(checks)):
			return in.printHealth(ctx, nodes, checks)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(healthPause, max(until.Sub(in.Now()), time.Millisecond))):
		}
	}
}

// healthRound finds the nodes and asks each.
func (in *invocation) healthRound(ctx context.Context) ([]registry.Node, []check, error) {
	if n, ok, err := in.targetNode(ctx); err != nil {
		return nil, nil, err
	} else if ok {
		return []registry.Node{n}, []check{in.askGRPCHealth(ctx, in.dial, n.Address, n.Service)}, nil
	}
	if len(in.args) > 1 {
		return nil, nil, in.oneTooMany(in.args[1])
	}
	nodes, err := in.chosenNodes(ctx, in.flags.String("node"))
	if err != nil {
		return nil, nil, err
	}
	checks, err := in.checkNodes(ctx, nodes)
	return nodes, checks, err
}

// chosenNodes gives the nodes of the service that is the first argument, or of all, or the one with an id. None is a failure.
func (in *invocation) chosenNodes(ctx context.Context, id string) ([]registry.Node, error) {
	found, err := in.discover(ctx)
	if err != nil {
		return nil, err
	}
	nodes := found.visible()
	if len(in.args) > 0 {
		if nodes = found.of(in.args[0]); len(nodes) == 0 {
			return nil, serviceNotFound(in, in.args[0], found)
		}
	}
	if id == "" {
		return nodes, nil
	}
	i := slices.IndexFunc(nodes, func(n registry.Node) bool { return n.ID == id })
	if i < 0 {
		return nil, nodeNotFound(id, nodes)
	}
	return nodes[i : i+1], nil
}

func allHealthy(checks []check) bool {
	return len(checks) > 0 && !slices.ContainsFunc(checks, func(c check) bool { return !c.healthy() })
}

func (in *invocation) printHealth(ctx context.Context, nodes []registry.Node, checks []check) error {
	values := []healthValue{}
	t := &table{heads: []string{"NODE", "SERVICE", "ADDRESS", "STATUS", "RTT", "DETAIL", "VERSION"}, wide: 6}
	for i, n := range nodes {
		c := checks[i]
		values = append(values, healthValue{Node: n.ID, Service: n.Service, Version: n.Version, Address: n.Address,
			OK: c.healthy(), Status: c.status, Detail: c.detail, MS: c.ms()})
		t.rows = append(t.rows, []cell{text(n.ID), text(n.Service), text(n.Address), c.statusCell(), c.rttCell(), text(c.detail), text(n.Version)})
	}
	if len(nodes) == 0 {
		in.note("no services found (registry %s)", in.registryShown())
	}
	if err := in.print(ctx, result{value: values, table: t}); err != nil {
		return err
	}
	if len(nodes) > 0 && !allHealthy(checks) {
		return exit(exitCheck)
	}
	return nil
}
