package commands_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
)

// captured gives a node of go-micro as its mDNS record of that version had it.
func captured(t *testing.T, version string) registry.Node {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "strangers", version+".json"))
	if err != nil {
		t.Fatal(err)
	}
	n := registry.Node{ID: "greeter-" + version, Address: "greeter-" + version + ":1"}
	if err := json.Unmarshal(data, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// goMicro puts a node of go-micro into the world. It answers Debug.Health and Debug.Stats as that version does, neither where stats is
// empty, as in v5, has no Debug.Info, and gives back what else it gets.
func (w *world) goMicro(t *testing.T, version, stats string) {
	t.Helper()
	n := captured(t, version)
	delete(n.Metadata, registry.MetaTransport) // the world has one, whatever the node's is called
	delete(n.Metadata, registry.MetaProtocol)
	w.peer(t, n.ID, func(c transport.Conn) bool {
		var m transport.Message
		if c.Recv(context.Background(), &m) != nil {
			return false
		}
		reply := transport.Message{Kind: transport.Reply, ID: m.ID, Body: m.Body}
		reply.Header, _ = reply.Header.Set(transport.HeaderContentType, "application/json")
		switch endpoint := m.Header.Get(transport.HeaderEndpoint); {
		case stats == "" && strings.HasPrefix(endpoint, "Debug."):
			reply.Header, _ = reply.Header.Set(transport.HeaderError, "rpc: can't find service Debug")
		case endpoint == "Debug.Health":
			reply.Body = []byte(`{"status":"ok"}`)
		case endpoint == "Debug.Stats":
			reply.Body = []byte(stats)
		case strings.HasPrefix(endpoint, "Debug."):
			reply.Header, _ = reply.Header.Set(transport.HeaderError, "rpc: can't find method Info")
		}
		return m.Kind != transport.Call || c.Send(context.Background(), &reply) == nil
	})
	w.register(t, n)
}

// What go-micro's versions answer to Debug.Stats.
const (
	statsV1  = `{"timestamp":1795356131,"started":1795352531,"uptime":3600,"memory":3145728,"threads":17,"gc":120000}`
	statsV2  = `{"timestamp":1795356131,"started":1795352531,"uptime":3600,"memory":3145728,"threads":17,"gc":120000,"requests":12,"errors":1}`
	statsV6  = `{"timestamp":"1795356131","started":"1795352531","uptime":"3600","memory":"3145728","threads":"17","gc":"120000","requests":"12"}`
	statsNil = `{}`
)

var strangerWorlds = map[string]func(t *testing.T) *world{
	"v1":     func(t *testing.T) *world { w := newWorld(t); w.goMicro(t, "v1", statsV1); return w },
	"v2grpc": func(t *testing.T) *world { w := newWorld(t); w.goMicro(t, "v2grpc", statsNil); return w },
	"v5":     func(t *testing.T) *world { w := newWorld(t); w.goMicro(t, "v5", statsV2); return w },
	"bare":   func(t *testing.T) *world { w := newWorld(t); w.goMicro(t, "v5", ""); return w },
	"v6":     func(t *testing.T) *world { w := newWorld(t); w.goMicro(t, "v5", statsV6); return w },
}

// TestStrangers runs commands against nodes of go-micro, by the records that these announce of themselves.
func TestStrangers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		args   []string
		worlds []string
	}{
		{"describe", []string{"describe", "greeter"}, []string{"v1", "v2grpc", "v5"}},
		{"describe-endpoint", []string{"describe", "greeter", "Say.Hello"}, []string{"v1", "v5"}},
		{"describe-example", []string{"describe", "greeter", "--example"}, []string{"v1", "v5"}},
		{"describe-schema", []string{"describe", "greeter", "Say.Hello", "--schema", "json"}, []string{"v1"}},
		{"describe-subscriber", []string{"describe", "greeter", "Func"}, []string{"v5"}},
		{"list-endpoints", []string{"list", "endpoints"}, []string{"v1", "v5"}},
		{"list-services", []string{"list"}, []string{"v5"}},
		{"call", []string{"call", "greeter", "Say.Hello", "name=5", "count=3"}, []string{"v1", "v2grpc", "v5"}},
		{"call-typo", []string{"call", "greeter", "Say.Hello", "nme=x", "count=x"}, []string{"v1", "v5"}},
		{"call-typo-silent", []string{"call", "greeter", "Say.Hello", "nme=x", "--no-validate"}, []string{"v5"}},
		{"call-endpoint-typo", []string{"call", "greeter", "Say.Helo", "name=x"}, []string{"v5"}},
		{"call-which", []string{"call", "greeter"}, []string{"v5"}},
		{"call-example", []string{"call", "greeter", "Say.Hello", "--example"}, []string{"v5"}},
		{"stats", []string{"stats", "greeter"}, []string{"v1", "v2grpc", "v5", "v6", "bare"}},
	} {
		for _, name := range c.worlds {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := strangerWorlds[name](t)
				file := "strangers/" + c.name + "." + name
				golden(t, file+".tty", c.args, w.run(t, tty, nil, c.args...))
				golden(t, file+".pipe", c.args, w.run(t, pipe, nil, c.args...))
				args := append([]string{"-o", "json"}, c.args...)
				golden(t, file+".json", args, w.run(t, pipe, nil, args...))
			})
		}
	}
}

// TestStrangersHealth: a node of go-micro is healthy by what it says itself, and alive where it has no endpoint that would say it.
func TestStrangersHealth(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]outcome{
		"v5":   {0, `"greeter-v5",true,"ok"` + "\n", ""},
		"bare": {0, `"greeter-v5",true,"alive"` + "\n", ""},
	} {
		if got := strangerWorlds[name](t).run(t, pipe, nil, "health", "greeter", "-q", ".[]|[.node,.ok,.status]|@csv"); got != want {
			t.Errorf("%s: exit %d, %q, %q", name, got.code, got.stdout, got.stderr)
		}
	}
}

// TestStrangersStats: what is no answer of either kind is an error, and what is beyond all bounds is left out.
func TestStrangersStats(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		`{"started":"yesterday"}`: "exit 4",
		`[]`:                      "exit 4",
		`{"uptime":-1}`:           "exit 4",
		`{"started":1e3}`:         "exit 4",
		`{"started":9223372036854775807,"threads":9223372036854775807}`: "exit 0",
	} {
		w := newWorld(t)
		w.goMicro(t, "v5", answer)
		got := w.run(t, pipe, nil, "stats", "greeter", "-o", "json")
		if (got.code == 0) != (want == "exit 0") || got.code == 0 && !json.Valid([]byte(got.stdout)) {
			t.Errorf("%s: exit %d, %s%s, want %s", answer, got.code, got.stdout, got.stderr, want)
		}
	}
}

// TestRecordedSchema: what is made of the trees of types that go-micro describes badly.
func TestRecordedSchema(t *testing.T) {
	t.Parallel()
	v := func(name, kind string, fields ...*registry.Value) *registry.Value {
		return &registry.Value{Name: name, Type: kind, Values: fields}
	}
	for name, tt := range map[string]struct {
		request *registry.Value
		body    string // of the items a=1 b=2
		doubts  string // what body is warned of; empty where nothing is
	}{
		"fields":                  {v("R", "R", v("a", "string"), v("b", "int64")), `{"a":"1","b":2}`, ""},
		"an unknown field":        {v("R", "R", v("a", "int")), `{"a":1,"b":"2"}`, "unknown field"},
		"no tags":                 {v("R", "R", v("string", "string"), v("int64", "int64")), `{"a":"1","b":"2"}`, ""},
		"one without a tag":       {v("R", "R", v("a", "uint8"), v("int64", "int64")), `{"a":1,"b":"2"}`, ""},
		"embedded":                {v("R", "R", v("a", "float32"), v("Base", "Base", v("c", "string"))), `{"a":1,"b":"2"}`, ""},
		"a oneof":                 {v("R", "R", v("a", "bool"), v("isR_Kind", "isR_Kind")), `{"a":"1","b":"2"}`, "want bool"},
		"names with another form": {v("R", "R", v("a", "int"), v("b", "time_zone")), `{"a":1,"b":"2"}`, ""},
		"a map":                   {v("R", "R", v("a", ""), v("b", "")), `{"a":"1","b":"2"}`, ""},
		"an enum":                 {v("R", "R", v("a", "Color"), v("b", "Color")), `{"a":"1","b":"2"}`, ""},
		"lists":                   {v("R", "R", v("a", "[]int32"), v("b", "[]Item")), `{"a":"1","b":"2"}`, "want []int32"},
		"bytes":                   {v("R", "R", v("a", "[]uint8"), v("b", "string")), `{"a":"1","b":"2"}`, "want bytes"},
		"a well-known type":       {v("R", "R", v("a", "Timestamp", v("seconds", "int64")), v("b", "Time", v("wall", "uint64"))), `{"a":"1","b":"2"}`, ""},
		"a struct within":         {v("R", "R", v("a", "Item", v("id", "string")), v("b", "Item", v("id", "string"))), `{"a":"1","b":"2"}`, "want Item"},
		"deeper than is told":     {v("R", "R", v("a", "Item"), v("b", "Item")), `{"a":"1","b":"2"}`, ""},
		"a field twice":           {v("R", "R", v("a", "int"), v("a", "int")), `{"a":1,"b":"2"}`, ""},
		"the body as it came":     {v("Frame", "Frame", v("Data", "[]uint8")), `{"a":"1","b":"2"}`, ""},
		"nothing":                 {v("Empty", "Empty"), `{"a":"1","b":"2"}`, ""},
		"no request":              {nil, `{"a":"1","b":"2"}`, ""},
		"letters in another case": {v("R", "R", v("A", "int"), v("B", "int")), `{"a":1,"b":2}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.stranger(t, "stranger-1")
			n := node("stranger-1", "stranger", "", "stranger-1:1", 0)
			n.Endpoints = []registry.Endpoint{{Name: "Any.Thing", Request: tt.request}}
			w.register(t, n)
			got := w.run(t, pipe, nil, "call", "stranger", "Any.Thing", "a=1", "b=2")
			if got.code != 0 || got.stdout != tt.body+"\n" || (got.stderr == "") != (tt.doubts == "") || !strings.Contains(got.stderr, tt.doubts) {
				t.Errorf("exit %d, %q, %q; want %s and %q", got.code, got.stdout, got.stderr, tt.body, tt.doubts)
			}
		})
	}
}

// TestRecordedNames: a protobuf field is known by either of its names.
func TestRecordedNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stranger(t, "stranger-1")
	n := node("stranger-1", "stranger", "", "stranger-1:1", 0)
	n.Endpoints = []registry.Endpoint{{Name: "Any.Thing", Request: &registry.Value{Name: "R", Type: "R", Values: []*registry.Value{{Name: "user_id_2", Type: "int64"}}}}}
	w.register(t, n)
	for _, name := range []string{"user_id_2", "userId2"} {
		for _, all := range [][]string{nil, {"--all", "-q", ".[].body"}} {
			got := w.run(t, pipe, nil, append([]string{"call", "stranger", "Any.Thing", name + "=1"}, all...)...)
			if want := `{"` + name + `":1}`; got.code != 0 || strings.Join(strings.Fields(got.stdout), "") != want || got.stderr != "" {
				t.Errorf("exit %d, %q, %q; want %s", got.code, got.stdout, got.stderr, want)
			}
		}
	}
}
