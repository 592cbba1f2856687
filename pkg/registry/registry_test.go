package registry_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/cb02dfca/micro/pkg/registry"
)

func valid() registry.Node {
	return registry.Node{
		ID: "greeter-1", Service: "greeter", Version: "1.2.3", Address: "127.0.0.1:80",
		Metadata: map[string]string{"zone": "a"},
		Endpoints: []registry.Endpoint{{
			Name: "Say.Hello", Metadata: map[string]string{"doc": "Says\nhello."},
			Request: &registry.Value{Name: "Request", Type: "Request", Values: []*registry.Value{{Name: "name", Type: "string"}}},
		}},
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"greeter": true, "a": true, "7": true, "go.micro.srv.greeter": true, "a-b_c.d": true, "A.B": true,
		strings.Repeat("x", registry.MaxName): true, strings.Repeat("x", registry.MaxName+1): false,
		"": false, ".a": false, "a.": false, "-a": false, "a-": false, "_services": false, "a..b": false, "a b": false,
		"a/b": false, "ä": false, "a\x00b": false, "a\nb": false, "*": false, "a\xffb": false,
	} {
		if got := registry.ValidName(name); got != want {
			t.Errorf("ValidName(%q) is %v", name, got)
		}
	}
}

func TestValidHostPort(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:65535": true, "host:80": true,
		"": false, "host": false, "host:": false, ":80": false, "host:0": false, "host:65536": false, "host:-1": false,
		"host:http": false, "::1:80": false, "host:+80": false, "host:80:90": false,
	} {
		err := registry.ValidHostPort(address)
		if (err == nil) != want || err != nil && !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("ValidHostPort(%q) gave %v", address, err)
		}
	}
}

func pairs(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint("k", i)] = "v"
	}
	return m
}

// nested is a type of so many levels.
func nested(levels int) *registry.Value {
	v := &registry.Value{}
	for range levels - 1 {
		v = &registry.Value{Values: []*registry.Value{v}}
	}
	return v
}

func TestValidate(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", registry.MaxMetaValue)
	for name, c := range map[string]struct {
		change func(n *registry.Node)
		want   string // part of the error; empty: valid
	}{
		"good":                  {func(*registry.Node) {}, ""},
		"least":                 {func(n *registry.Node) { *n = registry.Node{ID: "a", Service: "b", Address: "c"} }, ""},
		"no service":            {func(n *registry.Node) { n.Service = "" }, "service name"},
		"service with /":        {func(n *registry.Node) { n.Service = "a/b" }, "service name"},
		"no id":                 {func(n *registry.Node) { n.ID = "" }, "node id"},
		"id with /":             {func(n *registry.Node) { n.ID = "orders/created-0f1e" }, ""},
		"id that ends with /":   {func(n *registry.Node) { n.ID = "orders/" }, "node id"},
		"id that begins with /": {func(n *registry.Node) { n.ID = "/orders" }, "node id"},
		"id that climbs":        {func(n *registry.Node) { n.ID = "a/../b" }, "node id"},
		"id with control":       {func(n *registry.Node) { n.ID = "a\x1bb" }, "node id"},
		"id of the limit":       {func(n *registry.Node) { n.ID = strings.Repeat("x", 2*registry.MaxName) }, ""},
		"id over the limit":     {func(n *registry.Node) { n.ID = strings.Repeat("x", 2*registry.MaxName+1) }, "node id"},
		"version with control":  {func(n *registry.Node) { n.Version = "1\x00" }, "version"},
		"version over":          {func(n *registry.Node) { n.Version = strings.Repeat("1", registry.MaxName+1) }, "version"},
		"no address":            {func(n *registry.Node) { n.Address = "" }, "address"},
		"address with path":     {func(n *registry.Node) { n.Address = "host:80/x" }, "address"},
		"address with user":     {func(n *registry.Node) { n.Address = "me@host:80" }, "address"},
		"address over":          {func(n *registry.Node) { n.Address = strings.Repeat("x", registry.MaxAddress+1) }, "address"},
		"pairs of the limit":    {func(n *registry.Node) { n.Metadata = pairs(registry.MaxMetadata) }, ""},
		"pairs over":            {func(n *registry.Node) { n.Metadata = pairs(registry.MaxMetadata + 1) }, "pairs"},
		"empty key":             {func(n *registry.Node) { n.Metadata = map[string]string{"": "v"} }, "metadata"},
		"key with control":      {func(n *registry.Node) { n.Metadata = map[string]string{"\x1b[2J": "v"} }, "metadata"},
		"value no UTF-8":        {func(n *registry.Node) { n.Metadata = map[string]string{"k": "\xff"} }, "metadata"},
		"value with bidi":       {func(n *registry.Node) { n.Metadata = map[string]string{"k": "a\u202eb"} }, "metadata"},
		"value over":            {func(n *registry.Node) { n.Metadata = map[string]string{"k": long + "x"} }, "metadata"},
		"metadata over in all": {func(n *registry.Node) {
			for k := range pairs(20) {
				n.Metadata[k] = long
			}
		}, "bytes of metadata"},
		"endpoints over":           {func(n *registry.Node) { n.Endpoints = make([]registry.Endpoint, registry.MaxEndpoints+1) }, "endpoints"},
		"endpoint without name":    {func(n *registry.Node) { n.Endpoints[0].Name = "" }, "endpoint"},
		"endpoint with control":    {func(n *registry.Node) { n.Endpoints[0].Name = "Say\x07" }, "endpoint"},
		"endpoint pairs over":      {func(n *registry.Node) { n.Endpoints[0].Metadata = pairs(registry.MaxMetadata + 1) }, "pairs"},
		"endpoint key control":     {func(n *registry.Node) { n.Endpoints[0].Metadata["\x1b"] = "" }, `endpoint "Say.Hello": metadata`},
		"endpoint value control":   {func(n *registry.Node) { n.Endpoints[0].Metadata["k"] = "\x1b]52;" }, "metadata"},
		"endpoint value over":      {func(n *registry.Node) { n.Endpoints[0].Metadata["k"] = long + "x" }, "metadata"},
		"type with control":        {func(n *registry.Node) { n.Endpoints[0].Request.Type = "a\x9bb" }, "type's field"},
		"field with control":       {func(n *registry.Node) { n.Endpoints[0].Request.Values[0].Name = "a\u200bb" }, "type's field"},
		"field over":               {func(n *registry.Node) { n.Endpoints[0].Request.Values[0].Type = long + "x" }, "type's field"},
		"null field":               {func(n *registry.Node) { n.Endpoints[0].Request.Values[0] = nil }, "null"},
		"null in the answer":       {func(n *registry.Node) { n.Endpoints[0].Response = &registry.Value{Values: []*registry.Value{nil}} }, "null"},
		"levels of the limit":      {func(n *registry.Node) { n.Endpoints[0].Response = nested(registry.MaxDepth) }, ""},
		"levels over":              {func(n *registry.Node) { n.Endpoints[0].Response = nested(registry.MaxDepth + 1) }, "levels"},
		"a type that holds itself": {func(n *registry.Node) { v := n.Endpoints[0].Request; v.Values[0] = v }, "levels"},
		"fields over": {func(n *registry.Node) {
			n.Endpoints[0].Response = &registry.Value{Values: slices.Repeat([]*registry.Value{{}}, registry.MaxValues)}
		}, "fields"},
	} {
		n := valid()
		c.change(&n)
		err := registry.Validate(n)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		case err != nil && len(err.Error()) > 700:
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestSort(t *testing.T) {
	t.Parallel()
	want := []registry.Node{{Service: "a", ID: "1"}, {Service: "a", ID: "2"}, {Service: "a", ID: "a"}, {Service: "b", ID: "0"}, {Service: "b", ID: "1"}}
	got := []registry.Node{want[3], want[2], want[4], want[0], want[1]}
	registry.Sort(got)
	if !slices.EqualFunc(got, want, registry.Node.Equal) {
		t.Errorf("got %v", got)
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	if !valid().Equal(valid()) || !(registry.Node{}).Equal(registry.Node{}) {
		t.Error("a node is not equal to itself")
	}
	for name, change := range map[string]func(n *registry.Node){
		"id":                func(n *registry.Node) { n.ID = "x" },
		"service":           func(n *registry.Node) { n.Service = "x" },
		"version":           func(n *registry.Node) { n.Version = "x" },
		"address":           func(n *registry.Node) { n.Address = "x" },
		"metadata":          func(n *registry.Node) { n.Metadata = map[string]string{"zone": "b"} },
		"more metadata":     func(n *registry.Node) { n.Metadata["more"] = "" },
		"no endpoints":      func(n *registry.Node) { n.Endpoints = nil },
		"more endpoints":    func(n *registry.Node) { n.Endpoints = append(n.Endpoints, registry.Endpoint{}) },
		"endpoint":          func(n *registry.Node) { n.Endpoints[0].Name = "x" },
		"endpoint metadata": func(n *registry.Node) { n.Endpoints[0].Metadata = nil },
		"no request":        func(n *registry.Node) { n.Endpoints[0].Request = nil },
		"response":          func(n *registry.Node) { n.Endpoints[0].Response = &registry.Value{} },
		"type":              func(n *registry.Node) { n.Endpoints[0].Request.Type = "x" },
		"field":             func(n *registry.Node) { n.Endpoints[0].Request.Values[0].Name = "x" },
		"fields":            func(n *registry.Node) { n.Endpoints[0].Request.Values = nil },
	} {
		n := valid()
		change(&n)
		if n.Equal(valid()) || valid().Equal(n) {
			t.Errorf("another %s makes no difference", name)
		}
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	n := valid()
	c := n.Clone()
	if !c.Equal(n) {
		t.Fatalf("the copy is %+v", c)
	}
	c.Metadata["zone"] = "b"
	c.Endpoints[0].Name = "x"
	if !n.Equal(valid()) {
		t.Error("a change of the copy changed the node")
	}
	c = n.Clone()
	c.Endpoints[0].Metadata["doc"] = "x"
	if !n.Equal(valid()) {
		t.Error("a change of the copy's endpoint changed the node")
	}
	if c := (registry.Node{}).Clone(); c.Metadata != nil || c.Endpoints != nil {
		t.Errorf("the copy of an empty node is %+v", c)
	}
}

// FuzzValidate: whatever is valid has no character in it that a terminal or a path minds, and no size beyond the limits.
func FuzzValidate(f *testing.F) {
	f.Add("greeter-1", "greeter", "1", "127.0.0.1:80", "zone", "a", "Say.Hello", "doc", "text", "Request")
	f.Add("a/b-1", "a.b", "", "host:1", "k", "", "E", "k", "line\nline", "[]string")
	f.Add("../a", "..", "\x1b", "a@b", "", "\xff", "\u202e", "", "\x00", "\u009b")
	f.Fuzz(func(t *testing.T, id, service, version, address, key, value, endpoint, endpointKey, endpointValue, field string) {
		n := registry.Node{
			ID: id, Service: service, Version: version, Address: address, Metadata: map[string]string{key: value},
			Endpoints: []registry.Endpoint{{
				Name: endpoint, Metadata: map[string]string{endpointKey: endpointValue},
				Response: &registry.Value{Name: field, Values: []*registry.Value{{Type: field}}},
			}},
		}
		err := registry.Validate(n)
		if err != nil {
			if !errors.Is(err, registry.ErrInvalid) || strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("error %q", err)
			}
			return
		}
		if !registry.ValidName(service) || len(id) > 2*registry.MaxName || id[0] == '/' || strings.Contains(id, "..") {
			t.Errorf("service %q and id %q are valid", service, id)
		}
		for _, s := range []string{id, service, version, address, key, value, endpoint} {
			if strings.ContainsFunc(s, unicode.IsControl) || strings.ToValidUTF8(s, "") != s || len(s) > registry.MaxMetaValue {
				t.Errorf("%q is valid", s)
			}
		}
		for _, s := range []string{endpointKey, endpointValue, field} {
			control := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
			if strings.ContainsFunc(s, control) || strings.ToValidUTF8(s, "") != s || len(s) > registry.MaxMetaValue {
				t.Errorf("%q is valid in an endpoint", s)
			}
		}
		if !n.Clone().Equal(n) {
			t.Error("a valid node's copy differs")
		}
	})
}
