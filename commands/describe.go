package commands

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/server"
)

func newDescribe() *command {
	return &command{
		name: "describe", aliases: []string{"inspect", "get"}, group: "Discover", args: "SERVICE [ENDPOINT]",
		short: "show what a service serves: nodes, endpoints, schemas, subscriptions", min: 1, max: 3,
		long: "One node of each version is asked. Where none tells, as go-micro's nodes do not, the registry's record is shown. SERVICE may be " +
			"grpc://HOST:PORT, and ENDPOINT then a service or a method: the server is asked by reflection, or --proto tells.",
		examples: []string{
			"micro describe greeter",
			"micro describe greeter Say.Hello --example  # commands to start from",
			"micro describe greeter Say.Hello --schema json",
			"micro describe greeter -o json",
			"micro describe grpc://127.0.0.1:50051 helloworld.Greeter  # any server of gRPC",
		},
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "version", Usage: "only version `V`"},
			&cli.StringFlag{Name: "node", Usage: "only the node with this `ID`"},
			&cli.BoolFlag{Name: "example", Usage: "print commands that call the endpoints"},
			&cli.StringFlag{Name: "schema", Usage: "print the schemas of requests and answers, in the `FORM` json"},
		}, protoFlags()...),
		exits: []exitCode{exitNotFound, exitUnavailable, exitTimeout},
		run:   runDescribe,
	}
}

// describeOptions is what describe was asked for.
type describeOptions struct {
	service, endpoint string
	version, node     string
	example, schema   bool
	protos            protoFiles
	target            bool // service is the URL of a server of gRPC
}

func readDescribeOptions(in *invocation) (describeOptions, error) {
	o := describeOptions{service: in.args[0], version: in.flags.String("version"), node: in.flags.String("node"), example: in.flags.Bool("example")}
	var err error
	if o.protos, err = in.readProtoFiles(); err != nil {
		return o, err
	}
	if o.target = isTarget(o.service); o.target {
		var words []string
		if o.service, words, err = readTarget(in.args); err != nil {
			return o, err
		}
		o.endpoint = strings.Join(words, "/")
		if o.version != "" || o.node != "" {
			return o, usage("%s names the node already: it goes with neither --node nor --version", o.service)
		}
	} else if len(in.args) > 2 {
		return o, usage("micro describe: %q is one argument too many", clipText(in.args[2]))
	} else if len(in.args) > 1 {
		o.endpoint = in.args[1]
	} else if service, endpoint, found := strings.Cut(o.service, "/"); found {
		o.service, o.endpoint = service, endpoint
	}
	if form := in.flags.String("schema"); form != "" {
		if o.schema = form == "json"; !o.schema {
			return o, usage("flag --schema: %q is not a form of schemas, known: json", form)
		}
	}
	if o.schema && o.example {
		return o, usage("flags --schema and --example do not go together")
	}
	return o, nil
}

// description is what describe tells.
type description struct {
	Service  string               `json:"service"`
	Versions []versionDescription `json:"versions"`
}

// versionDescription is what describe tells of one version.
type versionDescription struct {
	Version       string                    `json:"version,omitempty"`
	Source        string                    `json:"source"` // the node that told, or "registry"
	Nodes         []nodeValue               `json:"nodes"`
	ContentTypes  []string                  `json:"contentTypes,omitempty"`
	Endpoints     []server.Endpoint         `json:"endpoints"`
	Subscriptions []server.SubscriptionInfo `json:"subscriptions,omitempty"`
}

func runDescribe(ctx context.Context, in *invocation) error {
	o, err := readDescribeOptions(in)
	if err != nil {
		return err
	}
	ctx, cancel := in.deadline(ctx)
	defer cancel()
	describe := in.describeService
	if o.target {
		describe = in.describeTarget // what keeps to the endpoint itself
	}
	d, err := describe(ctx, o)
	if err != nil {
		return err
	}
	if o.endpoint != "" && !o.target {
		if err := d.keep(o.endpoint); err != nil {
			return err
		}
	}
	switch {
	case o.schema:
		return in.print(ctx, result{value: d.schemas(o.endpoint), names: d.endpointNames()})
	case o.example:
		return in.printExamples(ctx, d)
	}
	return in.print(ctx, d.result(o, in.upSince))
}

// describeService finds the nodes and asks one of each version.
func (in *invocation) describeService(ctx context.Context, o describeOptions) (*description, error) {
	found, err := in.discover(ctx)
	if err != nil {
		return nil, err
	}
	all := found.of(o.service)
	if len(all) == 0 {
		return nil, serviceNotFound(in, o.service, found)
	}
	nodes := slices.DeleteFunc(slices.Clone(all), func(n registry.Node) bool {
		return o.version != "" && n.Version != o.version || o.node != "" && n.ID != o.node
	})
	switch {
	case len(nodes) == 0 && o.node != "":
		return nil, nodeNotFound(o.node, all)
	case len(nodes) == 0:
		return nil, versionNotFound(o, all)
	}
	d := &description{Service: o.service}
	done := in.waiting("%s", o.service)
	defer done()
	for _, group := range byVersion(nodes) {
		v, err := in.describeVersion(ctx, group, o.protos)
		if err != nil {
			return nil, err
		}
		d.Versions = append(d.Versions, v)
	}
	return d, nil
}

func versionNotFound(o describeOptions, nodes []registry.Node) *failure {
	var versions []string
	for _, group := range byVersion(nodes) {
		versions = append(versions, dash(group[0].Version))
	}
	return fail(exitNotFound, "%s has no node of version %q; versions: %s", o.service, o.version, strings.Join(versions, ", ")).
		hint("all", "micro list nodes "+o.service)
}

// describeTries is how many nodes of a version are asked in turn.
const describeTries = 3

func (in *invocation) describeVersion(ctx context.Context, nodes []registry.Node, protos protoFiles) (versionDescription, error) {
	v := versionDescription{Version: nodes[0].Version, Source: "registry", Nodes: []nodeValue{}, Endpoints: []server.Endpoint{}}
	for _, n := range nodes {
		v.Nodes = append(v.Nodes, nodeValue{ID: n.ID, Service: n.Service, Version: n.Version, Address: n.Address, Metadata: n.Metadata,
			Started: startedPointer(n)})
	}
	if len(protos.files) > 0 {
		return v, in.describeByFiles(ctx, &v, nodes, protos)
	}
	c, err := in.dialer(ctx)
	if err != nil {
		return v, err
	}
	var silent []func() // the warnings of nodes that did not tell
	for i, n := range nodes {
		if i == describeTries || ctx.Err() != nil {
			break
		}
		var info server.Info
		took, err := in.ask(ctx, c, n, server.DebugInfo, &info)
		if err != nil {
			silent = append(silent, func() { in.tellSilent(n, newCheck(server.Health{}, took, err)) })
			continue
		}
		in.verbosely("node %s %s told in %s", n.ID, n.Address, took.Round(100*time.Microsecond))
		v.Source, v.ContentTypes, v.Subscriptions = n.ID, info.ContentTypes, info.Subscriptions
		for _, tell := range silent {
			tell()
		}
		v.Endpoints = slices.DeleteFunc(info.Endpoints, func(e server.Endpoint) bool { return strings.HasPrefix(e.Name, "Debug.") })
		return v, nil
	}
	if interrupted(ctx) {
		return v, context.Canceled
	}
	if v.Endpoints = in.catalogEndpoints(ctx, c, nodes); v.Endpoints != nil {
		v.Source = "reflection"
		return v, nil
	}
	for _, tell := range silent {
		tell()
	}
	v.Endpoints, v.Subscriptions = recordedEndpoints(nodes), recordedSubscriptions(nodes)
	return v, nil
}

// tellSilent says why a node does not tell what it serves. That a stranger has no such endpoint is no news where its record tells.
func (in *invocation) tellSilent(n registry.Node, c check) {
	tell := in.warn
	if c.status == alive && len(n.Endpoints) > 0 {
		tell = in.verbosely
	}
	tell("warning: node %s %s does not tell what it serves: %s", n.ID, n.Address, c.why())
}

// why tells what is known of a node that did not answer as it should.
func (c check) why() string {
	if c.status == alive {
		return "it has no Debug.Info"
	}
	return c.detail
}

func startedPointer(n registry.Node) *time.Time {
	if t := started(n); !t.IsZero() {
		return &t
	}
	return nil
}

// keep narrows d to one endpoint.
func (d *description) keep(endpoint string) error {
	var known []string
	for i := range d.Versions {
		v := &d.Versions[i]
		for _, e := range v.Endpoints {
			known = append(known, e.Name)
		}
		v.Endpoints = slices.DeleteFunc(v.Endpoints, func(e server.Endpoint) bool { return e.Name != endpoint })
		v.Subscriptions = nil
	}
	version := ""
	if len(d.Versions) == 1 {
		version = d.Versions[0].Version
	}
	d.Versions = slices.DeleteFunc(d.Versions, func(v versionDescription) bool { return len(v.Endpoints) == 0 })
	if len(d.Versions) == 0 {
		return noEndpoint(d.Service, version, endpoint, known)
	}
	return nil
}

// schemaPair is the JSON form of an endpoint's schemas.
type schemaPair struct {
	Request  *schema.Schema `json:"request,omitempty"`
	Response *schema.Schema `json:"response,omitempty"`
}

// schemas gives the pair of one endpoint, or all by name; the newest version wins.
func (d *description) schemas(endpoint string) any {
	all := map[string]schemaPair{}
	for _, v := range d.Versions {
		for _, e := range v.Endpoints {
			all[e.Name] = schemaPair{e.Request, e.Response}
		}
	}
	if endpoint != "" {
		return all[endpoint]
	}
	return all
}

// endpointDescription is the JSON form of "describe SERVICE ENDPOINT": the newest version's.
type endpointDescription struct {
	Service string `json:"service"`
	Version string `json:"version,omitempty"`
	server.Endpoint
}

func (d *description) result(o describeOptions, up func(time.Time) string) result {
	r := result{value: d, names: d.endpointNames(), text: func(w io.Writer, c palette) error { return d.draw(w, c, up) }}
	if o.endpoint != "" && len(d.Versions[len(d.Versions)-1].Endpoints) == 1 {
		v := d.Versions[len(d.Versions)-1]
		r.value = endpointDescription{d.Service, v.Version, v.Endpoints[0]}
	}
	return r
}

// endpointNames gives the endpoints of all versions.
func (d *description) endpointNames() []string {
	names := []string{}
	for _, v := range d.Versions {
		for _, e := range v.Endpoints {
			if !slices.Contains(names, e.Name) {
				names = append(names, e.Name)
			}
		}
	}
	return names
}

// upSince tells since when a node runs: an age for people, a time for programs.
func (in *invocation) upSince(t time.Time) string {
	if in.out.tty {
		return "up " + age(in.Now().Sub(t))
	}
	return "since " + t.UTC().Format(time.RFC3339)
}

// nodeNotFound is the failure of a node's id that is not there.
func nodeNotFound(id string, nodes []registry.Node) *failure {
	var ids []string
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	f := fail(exitNotFound, "node %q not found", id).because(errNodeNotFound)
	if near := closestNode(id, ids); near != "" {
		f = f.hint("did you mean", near)
	}
	return f.hint("all", "micro list nodes")
}

var errNodeNotFound = errors.New("node not found")
