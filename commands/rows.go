package commands

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// listRow is one row of a listing: its key tells it from others when a listing is watched.
type listRow struct {
	key   string
	name  string // for -o name
	value any    // for -o json
	cells []cell
}

// listHeads gives the heads of a kind of listing, and the first column of -o wide.
func listHeads(o listOptions) (heads []string, wide int) {
	switch {
	case o.kind == "services":
		return []string{"SERVICE", "VERSION", "NODES", "ENDPOINTS", "TRANSPORT", "AGE", "PROTOCOL"}, 6
	case o.kind == "nodes" && o.health:
		return []string{"NODE", "SERVICE", "ADDRESS", "VERSION", "STATUS", "RTT", "AGE", "METADATA", "TRANSPORT", "ENDPOINTS"}, 8
	case o.kind == "nodes":
		return []string{"NODE", "SERVICE", "ADDRESS", "VERSION", "AGE", "METADATA", "TRANSPORT", "ENDPOINTS"}, 6
	case o.kind == "endpoints":
		return []string{"ENDPOINT", "SERVICE", "VERSION", "KIND", "NODES", "REQUEST", "RESPONSE"}, 5
	}
	return []string{"TOPIC", "QUEUE", "SUBSCRIBERS", "AGE", "NODES"}, 4
}

func listResult(o listOptions, rows []listRow) result {
	heads, wide := listHeads(o)
	t := &table{heads: heads, wide: wide}
	values, names := []any{}, []string{}
	for _, r := range rows {
		t.rows = append(t.rows, r.cells)
		values = append(values, r.value)
		if !slices.Contains(names, r.name) {
			names = append(names, r.name)
		}
	}
	return result{value: values, table: t, names: names}
}

// rows makes the rows of a listing.
func (o listOptions) rows(ctx context.Context, in *invocation, nodes []registry.Node) ([]listRow, error) {
	if o.kind == "topics" {
		return o.topicRows(nodes), nil
	}
	var taken []registry.Node
	for _, n := range nodes {
		named := o.pattern != "" && !isGlob(o.pattern) // a hidden service is shown to who asks for it by name
		if o.matches(n.Service) && o.filter.takes(n) && (named || !hiddenNode(n)) {
			taken = append(taken, n)
		}
	}
	switch o.kind {
	case "services":
		return serviceRows(taken), nil
	case "endpoints":
		return endpointRows(taken), nil
	case "nodes":
		return nodeRows(ctx, in, taken, o.health)
	}
	return nil, nil
}

// serviceValue is the JSON form of a service of one version.
type serviceValue struct {
	Name      string     `json:"name"`
	Version   string     `json:"version,omitempty"`
	Nodes     int        `json:"nodes"`
	Endpoints *int       `json:"endpoints,omitempty"` // absent where the records do not carry them
	Transport string     `json:"transport,omitempty"`
	Protocol  string     `json:"protocol,omitempty"`
	Started   *time.Time `json:"started,omitempty"` // the oldest node
}

// byVersion groups nodes by service and version, in the order of the service's name and the version.
func byVersion(nodes []registry.Node) [][]registry.Node {
	groups := map[[2]string][]registry.Node{}
	for _, n := range nodes {
		k := [2]string{n.Service, n.Version}
		groups[k] = append(groups[k], n)
	}
	keys := slices.SortedFunc(maps.Keys(groups), func(a, b [2]string) int {
		return cmp.Or(strings.Compare(a[0], b[0]), compareVersions(a[1], b[1]))
	})
	out := make([][]registry.Node, len(keys))
	for i, k := range keys {
		out[i] = groups[k]
	}
	return out
}

// compareVersions orders 1.9.0 before 1.10.0: runs of digits count as numbers.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			na, nb := strings.TrimLeft(a[:da], "0"), strings.TrimLeft(b[:db], "0")
			if c := cmp.Or(cmp.Compare(len(na), len(nb)), strings.Compare(na, nb)); c != 0 {
				return c
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func serviceRows(nodes []registry.Node) []listRow {
	var rows []listRow
	for _, group := range byVersion(nodes) {
		first := group[0]
		v := serviceValue{Name: first.Service, Version: first.Version, Nodes: len(group),
			Transport: labels(group, registry.MetaTransport), Protocol: labels(group, registry.MetaProtocol)}
		age := cell{}
		if t := oldest(group); !t.IsZero() {
			v.Started, age = &t, ageSince(t)
		}
		endpoints := cell{}
		if n, known := countEndpoints(group); known {
			v.Endpoints, endpoints = &n, text(count(n, ""))
		}
		rows = append(rows, listRow{key: v.Name + "\x00" + v.Version, name: v.Name, value: v, cells: []cell{
			text(v.Name), text(v.Version), text(count(v.Nodes, "")), endpoints, text(v.Transport), age, text(v.Protocol),
		}})
	}
	return rows
}

// labels gives the values that nodes have under a key: "http", or "grpc,http" where they differ.
func labels(nodes []registry.Node, key string) string {
	var all []string
	for _, n := range nodes {
		if v := n.Metadata[key]; v != "" && !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// started reads when a node started; zero where it does not tell.
func started(n registry.Node) time.Time {
	t, err := time.Parse(time.RFC3339, n.Metadata[registry.MetaStarted])
	if err != nil {
		return time.Time{}
	}
	return t
}

func oldest(nodes []registry.Node) time.Time {
	var first time.Time
	for _, n := range nodes {
		if t := started(n); !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// endpointsOf gives what a node serves by its record, without the framework's own and without go-micro's subscribers.
func endpointsOf(n registry.Node) []registry.Endpoint {
	return slices.DeleteFunc(slices.Clone(n.Endpoints), func(e registry.Endpoint) bool {
		return strings.HasPrefix(e.Name, "Debug.") || isSubscriber(e)
	})
}

// countEndpoints counts the names that the nodes serve; not known where no record carries any.
func countEndpoints(nodes []registry.Node) (n int, known bool) {
	names := map[string]bool{}
	for _, node := range nodes {
		known = known || node.Endpoints != nil
		for _, e := range endpointsOf(node) {
			names[e.Name] = true
		}
	}
	return len(names), known
}

// nodeValue is the JSON form of a node.
type nodeValue struct {
	ID        string            `json:"id"`
	Service   string            `json:"service"`
	Version   string            `json:"version,omitempty"`
	Address   string            `json:"address"`
	Status    string            `json:"status,omitempty"` // with --health
	Detail    string            `json:"detail,omitempty"` // with --health
	MS        *float64          `json:"ms,omitempty"`     // with --health: the round trip
	Started   *time.Time        `json:"started,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Endpoints []string          `json:"endpoints,omitempty"`
}

func nodeRows(ctx context.Context, in *invocation, nodes []registry.Node, health bool) ([]listRow, error) {
	var checks []check
	if health {
		var err error
		if checks, err = in.checkNodes(ctx, nodes); err != nil {
			return nil, err
		}
	}
	var rows []listRow
	for i, n := range nodes {
		v := nodeValue{ID: n.ID, Service: n.Service, Version: n.Version, Address: n.Address, Metadata: n.Metadata}
		for _, e := range endpointsOf(n) {
			v.Endpoints = append(v.Endpoints, e.Name)
		}
		age := cell{}
		if t := started(n); !t.IsZero() {
			v.Started, age = &t, ageSince(t)
		}
		cells := []cell{text(n.ID), text(n.Service), text(n.Address), text(n.Version)}
		if health {
			c := checks[i]
			v.Status, v.Detail, v.MS = c.status, c.detail, c.ms()
			cells = append(cells, c.statusCell(), c.rttCell())
		}
		cells = append(cells, age, text(metaText(n.Metadata)), text(n.Metadata[registry.MetaTransport]), text(strings.Join(v.Endpoints, ",")))
		rows = append(rows, listRow{key: n.Service + "\x00" + n.ID, name: n.ID, value: v, cells: cells})
	}
	return rows, nil
}

// metaText writes a node's labels, without those that the framework sets.
func metaText(md map[string]string) string {
	own := []string{registry.MetaProtocol, registry.MetaTransport, registry.MetaUpgrade, registry.MetaBroker, registry.MetaStarted,
		registry.MetaHidden, registry.MetaIdempotent, registry.MetaRegistered}
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(md)) {
		if !slices.Contains(own, k) {
			pairs = append(pairs, k+"="+md[k])
		}
	}
	return strings.Join(pairs, ",")
}

// endpointValue is the JSON form of an endpoint in a listing.
type endpointValue struct {
	Service  string            `json:"service"`
	Version  string            `json:"version,omitempty"`
	Name     string            `json:"name"`
	Kind     string            `json:"kind"`
	Nodes    int               `json:"nodes"`
	Request  string            `json:"request,omitempty"`
	Response string            `json:"response,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func endpointRows(nodes []registry.Node) []listRow {
	var rows []listRow
	for _, group := range byVersion(nodes) {
		found := map[string]*endpointValue{}
		for _, n := range group {
			for _, e := range endpointsOf(n) {
				if v := found[e.Name]; v != nil {
					v.Nodes++
					continue
				}
				found[e.Name] = &endpointValue{Service: n.Service, Version: n.Version, Name: e.Name, Kind: kindOf(e), Nodes: 1,
					Request: typeOf(e.Request), Response: typeOf(e.Response), Metadata: e.Metadata}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(found)) {
			v := found[name]
			rows = append(rows, listRow{key: v.Service + "\x00" + v.Version + "\x00" + name, name: v.Service + "/" + name, value: *v, cells: []cell{
				text(name), text(v.Service), text(v.Version), text(v.Kind), text(count(v.Nodes, "")), text(v.Request), text(v.Response),
			}})
		}
	}
	return rows
}

// kindOf reads the kind of an endpoint's record; go-micro's says "stream" and no more.
func kindOf(e registry.Endpoint) string {
	switch {
	case e.Metadata["kind"] != "":
		return e.Metadata["kind"]
	case e.Metadata["stream"] == "true":
		return "stream"
	}
	return "unary"
}

func typeOf(v *registry.Value) string {
	if v == nil {
		return ""
	}
	return or(v.Type, v.Name)
}

// topicValue is the JSON form of a topic, or of a queue of it.
type topicValue struct {
	Topic       string     `json:"topic"`
	Queue       string     `json:"queue,omitempty"`
	Subscribers int        `json:"subscribers"`
	Started     *time.Time `json:"started,omitempty"`
	Nodes       []string   `json:"nodes"`
}

// broadcastVersion is the version under which go-micro's HTTP broker, and so ours, lists a subscriber without a queue;
// any other version is the queue's name.
const broadcastVersion = "ff.http.broadcast"

// isSubscription reports whether n is a subscription of an HTTP broker, go-micro v1's too, and no second record of one.
func isSubscription(n registry.Node) bool {
	return n.Service == registry.BrokerService || n.Service == registry.BrokerServiceV1 && n.Metadata[registry.MetaHidden] != "true"
}

func (o listOptions) topicRows(nodes []registry.Node) []listRow {
	groups := map[[2]string][]registry.Node{}
	for _, n := range nodes {
		topic := n.Metadata[registry.MetaTopic]
		if !isSubscription(n) || topic == "" || !o.matches(topic) || !o.filter.takesLabels(n) {
			continue
		}
		queue := n.Version
		if queue == broadcastVersion {
			queue = ""
		}
		groups[[2]string{topic, queue}] = append(groups[[2]string{topic, queue}], n)
	}
	var rows []listRow
	for _, k := range slices.SortedFunc(maps.Keys(groups), func(a, b [2]string) int {
		return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1]))
	}) {
		group := groups[k]
		v := topicValue{Topic: k[0], Queue: k[1], Subscribers: len(group), Nodes: []string{}}
		for _, n := range group {
			v.Nodes = append(v.Nodes, n.ID)
		}
		age := cell{}
		if t := oldest(group); !t.IsZero() {
			v.Started, age = &t, ageSince(t)
		}
		rows = append(rows, listRow{key: k[0] + "\x00" + k[1], name: k[0], value: v, cells: []cell{
			text(k[0]), text(k[1]), text(count(len(group), "")), age, text(strings.Join(v.Nodes, ",")),
		}})
	}
	return rows
}

// takesLabels is takes without the version, which a topic's record uses for its queue.
func (f nodeFilter) takesLabels(n registry.Node) bool { return nodeFilter{labels: f.labels}.takes(n) }
