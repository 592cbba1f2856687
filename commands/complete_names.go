package commands

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/server"
)

// arguments gives what may stand as the command's next argument.
func (c *completion) arguments(ctx context.Context) []candidate {
	args := c.line.args
	path, n := strings.Join(c.line.path, " "), len(args)
	if most := c.line.cmd.max; most >= 0 && n >= most {
		return nil
	}
	switch path {
	case "call", "stream", "describe":
		return c.called(ctx)
	case "health", "stats", "services", "registry get", "registry list", "registry watch", "registry export", "registry prune":
		if n > 0 { // behind the URL of a server of gRPC, whose names no registry has
			return nil
		}
		return c.services(ctx)
	case "list":
		switch {
		case n == 0:
			return c.kinds()
		case n > 1: // likewise
			return nil
		case strings.HasPrefix(args[0], "topic"):
			return c.topics(ctx)
		}
		return c.services(ctx)
	case "publish", "subscribe":
		if n == 0 || path == "subscribe" {
			return c.topics(ctx)
		}
		return c.itemFiles()
	case "registry deregister":
		return c.nodeIDs(ctx)
	case "registry register", "registry import":
		return append(c.files(""), candidate{"-", "standard input"})
	case "run":
		return append([]candidate{{"builtin:greeter", "the demo"}, {"builtin:echo", "answers with the request"}}, c.files("")...)
	case "generate":
		return c.filesOf(c.word, ".proto")
	case "completion":
		return []candidate{{"bash", ""}, {"zsh", ""}, {"fish", ""}}
	case "help":
		return c.helpWords()
	}
	return nil
}

func (c *completion) kinds() (out []candidate) {
	for _, k := range listKinds {
		out = append(out, candidate{k, ""})
	}
	return out
}

// helpWords gives commands, those below the ones that stand there, and topics.
func (c *completion) helpWords() (out []candidate) {
	cmd := c.in.root
	for _, word := range c.line.args {
		if cmd = cmd.child(word); cmd == nil {
			return nil
		}
	}
	for _, s := range cmd.sub {
		if cmd != c.in.root || s.group != "" {
			out = append(out, candidate{s.name, s.short})
		}
	}
	if cmd == c.in.root {
		for _, name := range topicNames() {
			out = append(out, candidate{name, "a topic"})
		}
	}
	return out
}

// discover asks the registry once. What it told before an error counts.
func (c *completion) discover(ctx context.Context) discovery {
	if c.found == nil {
		c.found = &discovery{}
		if r, err := c.in.openRegistry(ctx); err == nil {
			c.found.nodes, _ = r.List(ctx)
		}
	}
	return *c.found
}

func (c *completion) services(ctx context.Context) (out []candidate) {
	found := c.discover(ctx)
	names := found.services()
	slices.Sort(names)
	for _, name := range names {
		nodes := found.of(name)
		var versions []string
		for _, group := range byVersion(nodes) {
			versions = append(versions, group[0].Version)
		}
		out = append(out, candidate{name, strings.TrimSpace(strings.Join(versions, ", ") + " · " + plural(len(nodes), "node"))})
	}
	return out
}

func (c *completion) topics(ctx context.Context) (out []candidate) {
	found := c.discover(ctx)
	subscribers := map[string]int{}
	for _, n := range found.nodes {
		if topic := n.Metadata[registry.MetaTopic]; isSubscription(n) && topic != "" {
			subscribers[topic]++
		}
	}
	for _, s := range recordedSubscriptions(found.nodes) {
		subscribers[s.Topic] = max(1, subscribers[s.Topic])
	}
	for _, topic := range slices.Sorted(maps.Keys(subscribers)) {
		if !slices.Contains(c.line.args, topic) {
			out = append(out, candidate{topic, plural(subscribers[topic], "subscriber")})
		}
	}
	return out
}

func (c *completion) queues(ctx context.Context) (out []candidate) {
	if c.line.cmd.name != "subscribe" {
		return nil
	}
	for _, r := range (listOptions{}).topicRows(c.discover(ctx).nodes) {
		if v, ok := r.value.(topicValue); ok && v.Queue != "" {
			out = append(out, candidate{v.Queue, "of " + v.Topic})
		}
	}
	return out
}

// nodes gives those of the service that the line names, or all that listings show.
func (c *completion) nodes(ctx context.Context) []registry.Node {
	found := c.discover(ctx)
	switch args := c.line.args; {
	case len(args) == 0:
		return found.visible()
	case c.line.cmd.name == "list":
		return slices.DeleteFunc(found.visible(), func(n registry.Node) bool { return len(args) > 1 && n.Service != args[1] })
	default:
		service, _, _ := strings.Cut(args[0], "/")
		return found.of(service)
	}
}

func (c *completion) nodeIDs(ctx context.Context) (out []candidate) {
	for _, n := range c.nodes(ctx) {
		out = append(out, candidate{n.ID, strings.TrimSpace(n.Service + " " + n.Version + " " + n.Address)})
	}
	return out
}

func (c *completion) addresses(ctx context.Context) (out []candidate) {
	if c.line.cmd.name != "call" && c.line.cmd.name != "stream" {
		return nil
	}
	for _, n := range c.nodes(ctx) {
		out = append(out, candidate{n.Address, n.ID})
	}
	return out
}

// labels gives the versions of the nodes, or their labels.
func (c *completion) labels(ctx context.Context, flag string) (out []candidate) {
	for _, n := range c.nodes(ctx) {
		if flag == "version" {
			out = append(out, candidate{n.Version, n.Service})
			continue
		}
		for _, label := range strings.Split(metaText(n.Metadata), ",") { // the framework's own are left out
			out = append(out, candidate{label, ""})
		}
	}
	return slices.DeleteFunc(out, func(k candidate) bool { return k.word == "" })
}

// called completes SERVICE ENDPOINT ITEMS, in all the ways in which they are spelt.
func (c *completion) called(ctx context.Context) []candidate {
	args := c.line.args
	if len(args) == 0 {
		service, _, slash := strings.Cut(c.word, "/")
		switch {
		case isTarget(c.word):
			return c.targetPath(ctx)
		case slash:
			return prefixed(service+"/", c.endpoints(ctx, service, c.word[len(service)+1:]))
		}
		out := c.services(ctx)
		if c.word != "" && !slices.ContainsFunc(out, func(k candidate) bool { return strings.HasPrefix(k.word, c.word) }) {
			out = append(out, candidate{"grpc://", "a server of gRPC at HOST:PORT"}, candidate{"grpcs://", "a server of gRPC at HOST:PORT, with TLS"})
		}
		return out
	}
	if address := c.value("address"); isTarget(address) { // it stands in place of the service
		args = append([]string{address}, args[1:]...)
	}
	service, words := args[0], args[1:]
	if isTarget(service) {
		var err error
		if service, words, err = readTarget(args); err != nil {
			return nil
		}
	} else if s, endpoint, found := strings.Cut(service, "/"); found {
		service, words = s, append([]string{endpoint}, words...)
	}
	if len(words) == 0 {
		return c.endpoints(ctx, service, c.word)
	}
	name, items := words[0], words[1:]
	if isTarget(service) {
		name, items = grpcWords(words)
		if !strings.Contains(name, "/") && len(items) == 0 { // a service, and its method is next
			if methods := c.methodsOf(ctx, service, name); methods != nil {
				return methods
			}
		}
	}
	if c.line.cmd.name == "describe" {
		return nil
	}
	if c.value("data") != "" || len(items) > 0 && looksLikeBody(items[0]) {
		return nil // the request is there
	}
	return c.items(c.schema(ctx, service, name), items)
}

// targetPath completes the path that a URL of gRPC may have.
func (c *completion) targetPath(ctx context.Context) []candidate {
	scheme, rest, _ := strings.Cut(c.word, "://")
	place, path, found := strings.Cut(rest, "/")
	if !found {
		return nil
	}
	target := scheme + "://" + place
	return prefixed(target+"/", c.endpoints(ctx, target, path))
}

// told gives what the endpoints are, by whoever tells: .proto files, the server at a URL or an address, the registry's record if that
// is enough, or a node.
func (c *completion) told(ctx context.Context, service string, schemas bool) []server.Endpoint {
	o := describeOptions{service: service, version: c.value("version"), node: c.value("node"),
		protos: protoFiles{c.values("proto"), c.values("proto-path")}, target: isTarget(service)}
	if o.target {
		if d, err := c.in.describeTarget(ctx, o); err == nil {
			return d.Versions[0].Endpoints
		}
		return nil
	}
	var nodes []registry.Node
	if address := c.value("address"); address != "" {
		nodes = []registry.Node{{ID: address, Service: service, Address: afterScheme(address), Metadata: map[string]string{}}}
		if scheme, _, named := strings.Cut(address, "://"); named {
			nodes[0].Metadata[registry.MetaTransport] = scheme
		}
	} else {
		nodes = slices.DeleteFunc(c.discover(ctx).of(service), func(n registry.Node) bool {
			return o.version != "" && n.Version != o.version || o.node != "" && n.ID != o.node
		})
	}
	if len(nodes) == 0 {
		return nil
	}
	if recorded := recordedEndpoints(nodes); !schemas && len(recorded) > 0 && len(o.protos.files) == 0 {
		return recorded
	}
	var out []server.Endpoint
	for _, group := range slices.Backward(byVersion(nodes)) { // the newest first
		v, err := c.in.describeVersion(ctx, group, o.protos)
		if err == nil {
			out = append(out, v.Endpoints...)
		}
	}
	return out
}

// endpoints gives those of a service. Of a server of gRPC the services come first, and then their methods.
func (c *completion) endpoints(ctx context.Context, service, word string) (out []candidate) {
	for _, e := range c.told(ctx, service, false) {
		if owner, method, path := strings.Cut(e.Name, "/"); path && isTarget(service) && !strings.HasPrefix(word, owner+"/") {
			out = append(out, candidate{owner + "/", "a service"})
			if strings.HasPrefix(word, owner+".") {
				out = append(out, candidate{owner + "." + method, aboutEndpoint(e)})
			}
			continue
		}
		out = append(out, candidate{e.Name, aboutEndpoint(e)})
	}
	return out
}

// methodsOf gives the methods of one service of a server of gRPC.
func (c *completion) methodsOf(ctx context.Context, target, service string) (out []candidate) {
	for _, e := range c.told(ctx, target, false) {
		if owner, method, _ := strings.Cut(e.Name, "/"); owner == service || strings.HasSuffix(owner, "."+service) {
			out = append(out, candidate{method, aboutEndpoint(e)})
		}
	}
	return out
}

func aboutEndpoint(e server.Endpoint) string {
	about := string(e.Kind)
	if e.RequestType != "" || e.ResponseType != "" {
		about += "  " + or(e.RequestType, "any") + " -> " + or(e.ResponseType, "any")
	}
	if e.Doc != "" {
		about += "  " + e.Doc
	}
	return about
}

// schema gives that of an endpoint's request; nil where it is not known.
func (c *completion) schema(ctx context.Context, service, name string) *schema.Schema {
	spelt := strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", ".")
	for _, e := range c.told(ctx, service, true) {
		if own := strings.ReplaceAll(e.Name, "/", "."); own == spelt || strings.HasSuffix(own, "."+spelt) && isTarget(service) {
			return e.Request
		}
	}
	return nil
}

// items completes the fields of a request, their values where they are a closed set, and files.
func (c *completion) items(s *schema.Schema, given []string) []candidate {
	if strings.ContainsAny(c.word, "=@") {
		if files := c.itemFiles(); files != nil {
			return files
		}
		it, err := parseItem(c.word)
		if err != nil {
			return nil
		}
		return prefixed(c.word[:len(c.word)-len(it.value)], valuesOf(it.schema(s), it.op == ":="))
	}
	parent, head := s.At(), ""
	if at := strings.LastIndexByte(c.word, '.'); at >= 0 && s != nil {
		head = c.word[:at+1]
		parent = s.At(strings.Split(c.word[:at], ".")...)
	}
	if s == nil || parent == nil {
		return nil
	}
	var out []candidate
	for _, name := range parent.Fields() {
		field := parent.At(name)
		if name == "" || strings.ContainsAny(name, "=:@[].") || field == nil && slices.Contains(given, name) {
			continue // an item could not name it
		}
		k := candidate{head + name + "=", aboutField(parent, name, field)}
		list := field != nil && slices.Contains(field.Type, "array")
		switch {
		case list:
			k.word = head + name + "[]="
		case field != nil && len(field.Fields()) > 0:
			k.word = head + name + "."
		case slices.ContainsFunc(given, func(w string) bool {
			it, err := parseItem(w)
			return err == nil && strings.Join(it.path, ".") == head+name
		}):
			continue
		}
		out = append(out, k)
	}
	return out
}

// itemFiles completes the file of photo@FILE and body:=@FILE; nil where the word is neither.
func (c *completion) itemFiles() []candidate {
	it, err := parseItem(c.word)
	if err != nil {
		return nil
	}
	file, found := it.value, it.op == "@"
	if it.op == ":=" {
		file, found = strings.CutPrefix(it.value, "@")
	}
	if !found {
		return nil
	}
	return prefixed(c.word[:len(c.word)-len(file)], c.filesOf(file))
}

// valuesOf gives the values of a field where they are a closed set, as text or as JSON.
func valuesOf(s *schema.Schema, asJSON bool) (out []candidate) {
	switch {
	case s == nil:
		return nil
	case slices.Contains(s.Type, "boolean"):
		return []candidate{{"true", ""}, {"false", ""}}
	}
	for _, raw := range s.Enum {
		value := string(raw)
		if !asJSON {
			value = strings.Trim(value, `"`)
		}
		out = append(out, candidate{value, ""})
	}
	return out
}

func aboutField(parent *schema.Schema, name string, field *schema.Schema) string {
	about := field.TypeName()
	if slices.Contains(parent.Required, name) {
		about += ", required"
	}
	for _, p := range parent.Properties {
		if p.Name == name && p.Schema != nil && p.Schema.Description != "" {
			about += ": " + p.Schema.Description
		}
	}
	return about
}
