package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

// The commands below "micro registry" look at what is registered, and change it by hand, in the registry that --registry names: a server's
// or any other.

const (
	maxNodesFile = 64 << 20 // bytes of a file of nodes
	importTTL    = time.Hour
)

func newRegistryList() *command {
	c := newServices()
	c.args, c.max = "[PATTERN]", 1
	c.name, c.short = "list", "list the services that are registered"
	c.examples = []string{"micro registry list", "micro registry list 'gr*' --registry http://127.0.0.1:8000"}
	return c
}

func newRegistryGet() *command {
	return &command{
		name: "get", args: "SERVICE", short: "show the nodes of a service", min: 1, max: 1,
		examples: []string{"micro registry get greeter", "micro registry get greeter -o json  # the records"},
		exits:    []exitCode{exitNotFound, exitUnavailable, exitTimeout},
		run: func(ctx context.Context, in *invocation) error {
			ctx, cancel := in.deadline(ctx)
			defer cancel()
			found, err := in.discover(ctx)
			if err != nil {
				return err
			}
			nodes := found.of(in.args[0])
			if len(nodes) == 0 {
				return serviceNotFound(in, in.args[0], found)
			}
			return in.printRecords(ctx, nodes, nil)
		},
	}
}

func newRegistryWatch() *command {
	return &command{
		name: "watch", args: "[SERVICE]", short: "tell what comes and goes, until Ctrl-C", max: 1,
		examples: []string{"micro registry watch", "micro registry watch greeter -o jsonl"},
		flags:    listFlags()[2:], exits: []exitCode{exitUnavailable, exitTimeout},
		run: func(ctx context.Context, in *invocation) error {
			in.args = append([]string{"nodes"}, in.args...)
			o, err := readListOptions(in)
			if err != nil {
				return err
			}
			return watchList(ctx, in, o)
		},
	}
}

// recordRows makes the rows of records. what, where it is not nil, gives what was done with each.
func recordRows(ctx context.Context, in *invocation, nodes []registry.Node, what []cell) (*table, []string, error) {
	rows, err := nodeRows(ctx, in, nodes, false)
	if err != nil {
		return nil, nil, err
	}
	heads, wide := listHeads(listOptions{kind: "nodes"})
	t := &table{heads: heads, wide: wide}
	if what != nil {
		t.heads, t.wide = append([]string{heads[0], "DONE"}, heads[1:]...), wide+1
	}
	var names []string
	for i, r := range rows {
		cells := r.cells
		if what != nil {
			cells = append([]cell{cells[0], what[i]}, cells[1:]...)
		}
		t.rows = append(t.rows, cells)
		names = append(names, r.name)
	}
	return t, names, nil
}

// printRecords prints nodes: as a table, or as JSON the records themselves, so that register and import take them.
func (in *invocation) printRecords(ctx context.Context, nodes []registry.Node, what []cell) error {
	t, names, err := recordRows(ctx, in, nodes, what)
	if err != nil {
		return err
	}
	return in.print(ctx, result{value: nodes, table: t, names: names})
}

func newRegistryExport() *command {
	return &command{
		name: "export", args: "[SERVICE]", short: "print all records as JSON, for import", max: 1,
		examples: []string{"micro registry export > nodes.json", "micro registry export greeter --registry etcd://127.0.0.1:2379"},
		exits:    []exitCode{exitNotFound, exitUnavailable, exitTimeout},
		run: func(ctx context.Context, in *invocation) error {
			ctx, cancel := in.deadline(ctx)
			defer cancel()
			found, err := in.discover(ctx)
			if err != nil {
				return err
			}
			nodes := found.nodes
			if len(in.args) > 0 {
				if nodes = found.of(in.args[0]); len(nodes) == 0 {
					return serviceNotFound(in, in.args[0], found)
				}
			}
			var names []string
			for _, n := range nodes {
				names = append(names, n.ID)
			}
			return in.print(ctx, result{value: append([]registry.Node{}, nodes...), names: names})
		},
	}
}

func ttlFlag(usage string) cli.Flag { return &cli.DurationFlag{Name: "ttl", Usage: usage} }

func newRegistryRegister() *command {
	return &command{
		name: "register", args: "FILE", short: "register the node in a file, as long as the command runs", min: 1, max: 1,
		long: "FILE is JSON, one node or a list of them; - is standard input. A node has id, service and address, and may have version, metadata and " +
			"endpoints, as get -o json shows them. They are withdrawn with Ctrl-C. With --ttl the command ends at once, and they stay for that time " +
			"or until somebody else registers them; a registry server can do that, others cannot.",
		examples: []string{
			"micro registry register node.json",
			`echo '{"id":"db-1","service":"db","address":"10.0.0.9:5432"}' | micro registry register - --ttl 1h`,
		},
		flags: []cli.Flag{ttlFlag("leave them registered for `D`, and do not wait")},
		exits: []exitCode{exitUnavailable, exitTimeout, exitPartly},
		run: func(ctx context.Context, in *invocation) error {
			return registerNodes(ctx, in, in.flags.Duration("ttl"))
		},
	}
}

func newRegistryImport() *command {
	return &command{
		name: "import", args: "FILE", short: "register what export printed, and leave it there", min: 1, max: 1,
		long: "The nodes stay for --ttl, and each goes over to its service as soon as that registers it. So what stands in one registry shows in " +
			"another, a server's, until the services come there. - is standard input.",
		examples: []string{"micro registry import nodes.json --registry http://10.0.0.4:8000", "micro registry import nodes.json --ttl 5m"},
		flags:    []cli.Flag{ttlFlag("leave them registered for `D` (default 1h)")},
		exits:    []exitCode{exitUnavailable, exitTimeout, exitPartly},
		run: func(ctx context.Context, in *invocation) error {
			ttl := in.flags.Duration("ttl")
			if ttl == 0 {
				ttl = importTTL
			}
			return registerNodes(ctx, in, ttl)
		},
	}
}

// readNodes reads a file of one node or of several.
func readNodes(in *invocation) ([]registry.Node, error) {
	name := in.args[0]
	var source io.Reader = in.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usage("%s", err).because(err)
		}
		defer f.Close()
		source = f
	}
	data, err := io.ReadAll(io.LimitReader(source, maxNodesFile))
	if err != nil {
		return nil, usage("%s: %s", name, err).because(err)
	}
	var nodes []registry.Node
	if data = bytes.TrimSpace(data); bytes.HasPrefix(data, []byte("[")) {
		err = json.Unmarshal(data, &nodes)
	} else {
		nodes = make([]registry.Node, 1)
		err = json.Unmarshal(data, &nodes[0])
	}
	if err != nil {
		return nil, usage("%s: neither a node nor a list of nodes: %s", name, jsonReason(data)).because(err).hint("an example", "micro registry export")
	}
	for i, n := range nodes {
		if err := registry.Validate(n); err != nil {
			return nil, usage("%s: node %d: %s; nothing was registered", name, i+1, trimPackage(err.Error())).because(err)
		}
	}
	return nodes, nil
}

// registerNodes registers the nodes of a file: for ttl, or until ctx ends.
func registerNodes(ctx context.Context, in *invocation, ttl time.Duration) error {
	nodes, err := readNodes(in)
	if err != nil {
		return err
	}
	r, err := in.openRegistry(ctx)
	if err != nil {
		return err
	}
	placer, places := r.(registry.Placer)
	if ttl > 0 && !places {
		return usage("registry %s withdraws its nodes when the command ends", in.registryShown()).
			hint("hold them", "micro registry register "+shellQuote(in.args[0])).hint("a server", "micro registry")
	}
	what, failed := make([]cell, len(nodes)), 0
	for i, n := range nodes {
		err := in.paced(ctx, func(ctx context.Context) error {
			if ttl > 0 {
				return placer.Place(ctx, n, ttl)
			}
			return r.Register(ctx, n, 0)
		})
		switch {
		case err == nil:
			what[i] = text("registered").as(good)
		case errors.Is(err, registry.ErrConflict):
			what[i] = text("taken").as(warn)
			failed++
			in.warn("warning: %s: %s", n.ID, trimPackage(err.Error()))
		default:
			if i > 0 {
				in.warn("warning: %d of %s were dealt with before this: the next is %s", i, plural(len(nodes), "node"), n.ID)
			}
			return in.explainRegistry(err)
		}
	}
	if err := in.printRecords(ctx, nodes, what); err != nil {
		return err
	}
	switch {
	case failed == len(nodes) && failed > 0:
		return exit(exitFailed)
	case ttl == 0:
		in.note("registered until Ctrl-C")
		<-ctx.Done()
	}
	if failed > 0 {
		return exit(exitPartly)
	}
	return nil
}

// paceWait is how long a change waits that a registry server does not take yet.
const paceWait = 100 * time.Millisecond

// paced makes one change of many, within the time that one has: a server takes so many a second, and those beyond them later.
func (in *invocation) paced(ctx context.Context, change func(context.Context) error) error {
	ctx, cancel := in.deadline(ctx)
	defer cancel()
	for {
		err := change(ctx)
		var e *status.Error
		if !errors.As(err, &e) || e.Code != status.ResourceExhausted {
			return err
		}
		wait := time.NewTimer(paceWait)
		select {
		case <-ctx.Done():
			wait.Stop()
			return err
		case <-wait.C:
		}
	}
}

func newRegistryDeregister() *command {
	return &command{
		name: "deregister", args: "ID", short: "take a node away, whoever registered it", min: 1, max: 1,
		long:     "For a node whose program is gone and that stays for a long lease. A program that runs registers its node again.",
		examples: []string{"micro registry deregister greeter-7f3a91c2"},
		exits:    []exitCode{exitNotFound, exitUnavailable, exitTimeout, exitDenied},
		run: func(ctx context.Context, in *invocation) error {
			ctx, cancel := in.deadline(ctx)
			defer cancel()
			found, err := in.discover(ctx)
			if err != nil {
				return err
			}
			for _, n := range found.nodes {
				if n.ID != in.args[0] {
					continue
				}
				if err := in.evict(ctx, n); err != nil {
					return err
				}
				return in.printRecords(ctx, []registry.Node{n}, []cell{text("removed")})
			}
			return nodeUnknown(in, in.args[0], found)
		},
	}
}

func nodeUnknown(in *invocation, id string, d discovery) error {
	return fail(exitNotFound, "node %q not found (%s, knows %s)", id, d.where(in), plural(len(d.nodes), "node")).
		because(registry.ErrNotFound).hint("all", "micro list nodes")
}

// evict takes a node away as its owner would, where the registry can.
func (in *invocation) evict(ctx context.Context, n registry.Node) error {
	r, err := in.openRegistry(ctx)
	if err != nil {
		return err
	}
	if e, ok := r.(registry.Evictor); ok {
		err = e.Evict(ctx, n.Service, n.ID)
	} else {
		err = r.Deregister(ctx, n)
	}
	if errors.Is(err, registry.ErrConflict) {
		return fail(exitDenied, "%s is held by its owner, and registry %s takes it away for nobody else: it goes with its lease", n.ID, in.registryShown()).because(err)
	}
	return in.explainRegistry(err)
}

func newRegistryPrune() *command {
	return &command{
		name: "prune", args: "[SERVICE]", short: "take away the nodes that nobody answers for", max: 1,
		long:     "Each node is asked how it is. One at whose address nobody listens is stale. Without --yes it is only named.",
		examples: []string{"micro registry prune  # what would go", "micro registry prune --yes"},
		flags:    []cli.Flag{&cli.BoolFlag{Name: "yes", Usage: "take them away"}},
		exits:    []exitCode{exitNotFound, exitUnavailable, exitTimeout, exitDenied, exitPartly},
		run:      runRegistryPrune,
	}
}

// registryElsewhere reports whether the registry is reached over a network.
func (in *invocation) registryElsewhere() bool {
	u, err := url.Parse(in.registryName())
	return err == nil && u.Host != "" && !hostcheck.Loopback(u.Host)
}

func runRegistryPrune(whole context.Context, in *invocation) error {
	ctx, cancel := in.deadline(whole)
	defer cancel()
	found, err := in.discover(ctx)
	if err != nil {
		return err
	}
	nodes := found.nodes
	if len(in.args) > 0 {
		if nodes = found.of(in.args[0]); len(nodes) == 0 {
			return serviceNotFound(in, in.args[0], found)
		}
	}
	if in.registryElsewhere() { // whose loopback is not this machine's
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n registry.Node) bool { return hostcheck.Loopback(n.Address) })
	}
	checks, err := in.checkNodes(ctx, nodes)
	if err != nil {
		return err
	}
	stale, what, failed := []registry.Node{}, []cell{}, 0
	for i, n := range nodes {
		if checks[i].status != unreachable {
			continue
		}
		stale = append(stale, n)
		done := text("stale").as(warn)
		if in.flags.Bool("yes") {
			done = text("removed").as(good)
			if err := in.paced(whole, func(ctx context.Context) error { return in.evict(ctx, n) }); err != nil {
				failed++
				done = text("kept").as(bad)
				in.warn("warning: %s", trimPackage(err.Error()))
			}
		}
		what = append(what, done)
	}
	if err := in.printRecords(whole, stale, what); err != nil {
		return err
	}
	if len(stale) > 0 && !in.flags.Bool("yes") {
		in.note("%s would go: micro registry prune --yes", plural(len(stale), "node"))
	} else if len(stale) == 0 {
		in.note("no stale nodes among %d", len(nodes))
	}
	switch {
	case failed > 0 && failed == len(stale):
		return exit(exitDenied)
	case failed > 0:
		return exit(exitPartly)
	}
	return nil
}
