package commands

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/suggest"
	"github.com/cb02dfca/micro/pkg/registry"
)

func newList() *command {
	return &command{
		name: "list", aliases: []string{"ls"}, group: "Discover", args: "[services|nodes|endpoints|topics] [grpc://HOST:PORT] [PATTERN]",
		short: "list services, nodes, endpoints or topics", max: 3,
		long: "PATTERN is a service's name, or a topic's for topics; *, ? and [ ] stand for what is not known of it. A server of gRPC tells of " +
			"services and endpoints by reflection.",
		examples: []string{
			"micro list  # the services",
			"micro list nodes greeter --health  # its nodes, each asked how it is",
			"micro list endpoints greeter",
			"micro list services grpc://127.0.0.1:50051  # any server of gRPC",
			"micro list nodes --meta zone=a -o name",
			"micro list nodes --watch  # what comes and goes, as it happens",
		},
		flags: listFlags(), exits: []exitCode{exitNotFound, exitUnavailable, exitTimeout},
		run: runList,
	}
}

// newServices is "list services" for those who type it so in other tools.
func newServices() *command {
	c := newList()
	c.name, c.aliases, c.group, c.args, c.max = "services", nil, "", "[grpc://HOST:PORT] [PATTERN]", 2
	c.short, c.examples = "list services", []string{"micro services"}
	c.run = func(ctx context.Context, in *invocation) error {
		in.args = append([]string{"services"}, in.args...)
		return runList(ctx, in)
	}
	return c
}

func listFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "health", Usage: "ask each node how it is (nodes)"},
		&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "go on and tell each change, until Ctrl-C"},
		&cli.StringSliceFlag{Name: "meta", Usage: "only nodes with this label, as `KEY=VALUE`; may stand several times"},
		&cli.StringFlag{Name: "version", Usage: "only nodes of version `V`"},
	}
}

// listOptions is what list was asked for.
type listOptions struct {
	kind    string
	target  string // the URL of a server of gRPC, in place of the registry
	pattern string
	filter  nodeFilter
	health  bool
	watch   bool
}

// listKinds are what can be listed.
var listKinds = [...]string{"services", "nodes", "endpoints", "topics"}

func readListOptions(in *invocation) (listOptions, error) {
	o := listOptions{kind: "services", health: in.flags.Bool("health"), watch: in.flags.Bool("watch")}
	args := in.args
	if len(args) > 0 && !isTarget(args[0]) {
		o.kind, args = args[0], args[1:]
	}
	if singular := o.kind + "s"; slices.Contains(listKinds[:], singular) {
		o.kind = singular
	}
	if !slices.Contains(listKinds[:], o.kind) {
		f := usage("cannot list %q: want services, nodes, endpoints or topics", o.kind)
		if near := suggest.Closest(o.kind, listKinds[:]); near != "" {
			f = f.hint("did you mean", "micro list "+near)
		}
		return o, f.hint("one service", "micro list services "+o.kind)
	}
	var err error
	if len(args) > 0 && isTarget(args[0]) {
		if o.target, args, err = readTarget(args); err != nil {
			return o, err
		}
	}
	if len(args) > 1 {
		return o, in.oneTooMany(args[1])
	}
	if len(args) > 0 {
		o.pattern = args[0]
	}
	if _, err := path.Match(o.pattern, ""); err != nil {
		return o, usage("pattern %q: a [ is not closed", o.pattern)
	}
	if o.health && o.kind != "nodes" {
		return o, usage("flag --health is for nodes, not for %s", o.kind).hint("try", "micro list nodes --health")
	}
	if o.health && o.watch {
		return o, usage("flags --health and --watch do not go together").hint("try", "micro health SERVICE --wait 1m")
	}
	o.filter, err = readNodeFilter(in.flags.String("version"), in.flags.StringSlice("meta"))
	return o, err
}

// nodeFilter narrows nodes by version and labels.
type nodeFilter struct {
	version string
	labels  [][2]string
}

func readNodeFilter(version string, meta []string) (nodeFilter, error) {
	f := nodeFilter{version: version}
	for _, m := range meta {
		k, v, found := strings.Cut(m, "=")
		if !found || k == "" {
			return f, usage("flag --meta: %q is not KEY=VALUE", m)
		}
		f.labels = append(f.labels, [2]string{k, v})
	}
	return f, nil
}

func (f nodeFilter) takes(n registry.Node) bool {
	if f.version != "" && n.Version != f.version {
		return false
	}
	for _, l := range f.labels {
		if v, found := n.Metadata[l[0]]; !found || v != l[1] {
			return false
		}
	}
	return true
}

func runList(ctx context.Context, in *invocation) error {
	o, err := readListOptions(in)
	if err != nil {
		return err
	}
	if o.target != "" {
		return in.listTarget(ctx, o)
	}
	if o.watch {
		return watchList(ctx, in, o)
	}
	ctx, cancel := in.deadline(ctx)
	defer cancel()
	found, err := in.discover(ctx)
	if err != nil {
		return err
	}
	rows, err := o.rows(ctx, in, found.nodes)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		if err := o.emptyList(in, found); err != nil {
			return err
		}
	}
	return in.print(ctx, listResult(o, rows))
}

// emptyList tells why there is nothing to list: a name that nobody has is an error, nothing at all is a note.
func (o listOptions) emptyList(in *invocation, found discovery) error {
	switch {
	case o.kind == "topics" && o.pattern != "" && !isGlob(o.pattern):
		return topicNotFound(in, o.pattern, found)
	case o.pattern != "" && !isGlob(o.pattern) && len(found.of(o.pattern)) == 0:
		return serviceNotFound(in, o.pattern, found)
	case len(found.visible()) > 0 || o.kind == "topics":
		in.note("no %s match (%s)", o.kind, found.where(in))
		return nil
	}
	if in.registryName() == "default" {
		in.note("no services found (%s). Other machines' are found with --registry 'default?scope=lan'", found.where(in))
		return nil
	}
	in.note("no services found (%s)", found.where(in))
	return nil
}

func isGlob(pattern string) bool { return strings.ContainsAny(pattern, "*?[") }

// matches holds a name against the pattern; the empty pattern takes all.
func (o listOptions) matches(name string) bool {
	if o.pattern == "" {
		return true
	}
	ok, err := path.Match(o.pattern, name)
	return err == nil && ok
}

// hiddenNode reports whether listings leave a node out.
func hiddenNode(n registry.Node) bool {
	return n.Service == registry.BrokerService || n.Service == registry.BrokerServiceV1 || n.Metadata[registry.MetaHidden] == "true"
}

// discovery is what the registry told.
type discovery struct {
	nodes  []registry.Node
	waited time.Duration
}

// discover asks the registry for all nodes.
func (in *invocation) discover(ctx context.Context) (discovery, error) {
	begun := in.Now()
	done := in.waiting("registry %s", in.registryShown())
	defer done()
	r, err := in.openRegistry(ctx)
	if err != nil {
		return discovery{}, err
	}
	nodes, err := r.List(ctx)
	d := discovery{nodes: nodes, waited: in.Now().Sub(begun)}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return d, fail(exitTimeout, "registry %s did not answer within %s", in.registryShown(), in.timeout).because(err).hint("more time", "--timeout 30s")
	case err != nil:
		return d, in.explainRegistry(err)
	}
	in.verbosely("registry %s: %d nodes in %s", in.registryShown(), len(nodes), d.waited.Round(100*time.Microsecond))
	return d, nil
}

// of gives the nodes of one service.
func (d discovery) of(service string) []registry.Node {
	var out []registry.Node
	for _, n := range d.nodes {
		if n.Service == service {
			out = append(out, n)
		}
	}
	return out
}

// visible gives the nodes that listings show.
func (d discovery) visible() []registry.Node {
	return slices.DeleteFunc(slices.Clone(d.nodes), hiddenNode)
}

// services gives the names of the services that listings show.
func (d discovery) services() []string {
	var names []string
	for _, n := range d.visible() {
		if !slices.Contains(names, n.Service) {
			names = append(names, n.Service)
		}
	}
	return names
}

// where tells what was asked, for messages.
func (d discovery) where(in *invocation) string {
	s := "registry " + in.registryShown()
	if w := d.waited.Round(time.Millisecond); w > 0 {
		s += ", waited " + w.String()
	}
	return s
}
