package zookeeper_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/registry/zookeeper"
)

// theirs is what go-micro v5 writes for a service with a stream and a subscriber, and for a node of its broker, whose id and
// topic are paths.
var theirs = map[string]string{
	"greeter/greeter-f4b983c9-29df-41d1-905b-6c8e03ee560b": `{"name":"greeter","version":"latest","metadata":null,"endpoints":[` +
		`{"request":{"name":"HelloRequest","type":"HelloRequest","values":[{"name":"name","type":"string","values":null},{"name":"tags","type":"[]string","values":null}]},` +
		`"response":{"name":"HelloResponse","type":"HelloResponse","values":[{"name":"text","type":"string","values":null}]},"metadata":{},"name":"Say.Hello"},` +
		`{"request":{"name":"Context","type":"Context","values":null},"response":{"name":"Stream","type":"Stream","values":null},"metadata":{"stream":"true"},"name":"Say.Count"},` +
		`{"request":{"name":"Event","type":"Event","values":[{"name":"text","type":"string","values":null}]},"response":null,"metadata":{"subscriber":"true","topic":"greeter.events"},"name":"Func"}],` +
		`"nodes":[{"metadata":{"broker":"http","protocol":"mucp","registry":"zookeeper","server":"mucp","transport":"http"},"id":"greeter-f4b983c9-29df-41d1-905b-6c8e03ee560b","address":"10.0.0.7:18080"}]}`,
	"micro.http.broker/users-created-33d511ab-f383-41b6-86cd-f22b6729c68b": `{"name":"micro.http.broker","version":"ff.http.broadcast","metadata":{"zone":"a"},"endpoints":null,` +
		`"nodes":[{"metadata":{"broker":"http","secure":"false","topic":"users/created"},"id":"users/created-33d511ab-f383-41b6-86cd-f22b6729c68b","address":"10.0.0.7:18081"}]}`,
}

// TestReadsGoMicro: its nodes, which are permanent, are listed, found, watched, and gone when it takes them away; they are not ours to
// change.
func TestReadsGoMicro(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	client := raw(t, addr)
	r := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix})
	must(t, r.Register(t.Context(), node("a"), 0))
	sets := registrytest.Follow(t, r, "greeter")
	registrytest.Expect(t, sets, "ours", registrytest.IDs("a"))
	for path, value := range theirs {
		put(t, client, prefix+"/"+path, value)
	}
	const id = "greeter-f4b983c9-29df-41d1-905b-6c8e03ee560b"
	got := registrytest.Expect(t, sets, "both", registrytest.IDs("a", id)).Nodes[1]
	want := registry.Node{
		ID: id, Service: "greeter", Version: "latest", Address: "10.0.0.7:18080",
		Metadata: map[string]string{"broker": "http", "protocol": "mucp", "registry": "zookeeper", "server": "mucp", "transport": "http"},
		Endpoints: []registry.Endpoint{
			{Name: "Say.Hello", Metadata: map[string]string{},
				Request: &registry.Value{Name: "HelloRequest", Type: "HelloRequest",
					Values: []*registry.Value{{Name: "name", Type: "string"}, {Name: "tags", Type: "[]string"}}},
				Response: &registry.Value{Name: "HelloResponse", Type: "HelloResponse", Values: []*registry.Value{{Name: "text", Type: "string"}}}},
			{Name: "Say.Count", Metadata: map[string]string{"stream": "true"},
				Request: &registry.Value{Name: "Context", Type: "Context"}, Response: &registry.Value{Name: "Stream", Type: "Stream"}},
			{Name: "Func", Metadata: map[string]string{"subscriber": "true", "topic": "greeter.events"},
				Request: &registry.Value{Name: "Event", Type: "Event", Values: []*registry.Value{{Name: "text", Type: "string"}}}},
		},
	}
	if !got.Equal(want) {
		t.Errorf("read\n%+v\nwant\n%+v", got, want)
	}
	all, err := r.List(t.Context())
	must(t, err)
	if len(all) != 3 || !all[1].Equal(want) || all[2].ID != "users/created-33d511ab-f383-41b6-86cd-f22b6729c68b" ||
		all[2].Metadata["topic"] != "users/created" || all[2].Metadata["zone"] != "a" {
		t.Errorf("List gave %+v", all)
	}
	if err := r.Register(t.Context(), registry.Node{ID: id, Service: "greeter", Address: "127.0.0.1:1"}, 0); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Register of their id gave %v, want ErrConflict", err)
	}
	if err := r.Deregister(t.Context(), want); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Deregister of their node gave %v, want ErrConflict", err)
	}
	must(t, client.Delete(prefix+"/greeter/"+id, -1))
	registrytest.Expect(t, sets, "ours alone", registrytest.IDs("a"))
}

// put writes a record as go-micro does: permanent, with the folders that lead there, for everybody.
func put(t *testing.T, client *zk.Conn, path, value string) {
	t.Helper()
	for at := 1; at < len(path); at++ {
		if path[at] == '/' {
			if _, err := client.Create(path[:at], nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
				t.Fatal(err)
			}
		}
	}
	if _, err := client.Set(path, []byte(value), -1); !errors.Is(err, zk.ErrNoNode) {
		must(t, err)
		return
	}
	must(t, second(client.Create(path, []byte(value), 0, zk.WorldACL(zk.PermAll))))
}

// goMicroService is the type into which go-micro decodes a record.
type goMicroService struct {
	Name      string             `json:"name"`
	Version   string             `json:"version"`
	Metadata  map[string]string  `json:"metadata"`
	Endpoints []*goMicroEndpoint `json:"endpoints"`
	Nodes     []*struct {
		Metadata map[string]string `json:"metadata"`
		ID       string            `json:"id"`
		Address  string            `json:"address"`
	} `json:"nodes"`
}

type goMicroEndpoint struct {
	Request  *registry.Value   `json:"request"`
	Response *registry.Value   `json:"response"`
	Metadata map[string]string `json:"metadata"`
	Name     string            `json:"name"`
}

// TestWritesAsGoMicro: at the paths where it looks, what it reads, and nothing that it does not know.
func TestWritesAsGoMicro(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	client := raw(t, addr)
	r := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix})
	n := node("greeter/topic/1")
	n.Metadata[registry.MetaStarted] = "2026-01-02T03:04:05Z"
	n.Endpoints = []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "R", Type: "R", Values: []*registry.Value{{Name: "name", Type: "string"}}}}}
	must(t, r.Register(t.Context(), n, time.Minute))
	must(t, r.Register(t.Context(), registry.Node{ID: "bare-1", Service: "bare", Address: "127.0.0.1:1"}, 0))
	for path, want := range map[string]string{
		"greeter/greeter-topic-1": `{"name":"greeter","version":"1.0.0","metadata":{},` +
			`"endpoints":[{"name":"Say.Hello","request":{"name":"R","type":"R","values":[{"name":"name","type":"string","values":null}]}}],` +
			`"nodes":[{"id":"greeter/topic/1","address":"127.0.0.1:4711","metadata":{"protocol":"mucp","started":"2026-01-02T03:04:05Z"}}]}`,
		"bare/bare-1": `{"name":"bare","version":"","metadata":{},"endpoints":[],"nodes":[{"id":"bare-1","address":"127.0.0.1:1","metadata":{}}]}`,
	} {
		value, stat, err := client.Get(prefix + "/" + path)
		must(t, err)
		if string(value) != want || stat.NumChildren != 0 || stat.EphemeralOwner == 0 {
			t.Fatalf("at %s stands, with %+v,\n%s\nwant\n%s", path, stat, value, want)
		}
		dec := json.NewDecoder(strings.NewReader(want))
		dec.DisallowUnknownFields()
		var s goMicroService
		must(t, dec.Decode(&s))
		if s.Metadata == nil || len(s.Nodes) != 1 || s.Nodes[0].Metadata == nil {
			t.Errorf("go-micro writes into maps that are missing: %+v", s)
		}
	}
}

// TestForeignRecords: what is no node is left out, and told of; a changed record is what it is now.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	client, said := raw(t, addr), &registrytest.Journal{}
	r := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix, Logger: said.Logger()})
	sets := registrytest.Follow(t, r, "")
	registrytest.Expect(t, sets, "an empty set", registrytest.IDs())
	record := func(service, id string) string {
		return fmt.Sprintf(`{"name":%q,"nodes":[{"id":%q,"address":"127.0.0.1:1"}]}`, service, id)
	}
	put := func(path, value string) { put(t, client, prefix+"/"+path, value) }
	put("greeter/a", record("greeter", "a"))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	for key, value := range map[string]string{
		"greeter/junk": "junk", "greeter/null": "null", "greeter/none": `{"name":"greeter"}`, "greeter/empty": "",
		"greeter/two":   `{"name":"greeter","nodes":[{"id":"two","address":"127.0.0.1:1"},{"id":"three","address":"127.0.0.1:1"}]}`,
		"greeter/nil":   `{"name":"greeter","nodes":[null]}`,
		"greeter/other": record("greeter", "another"), "greeter/auth": record("auth", "auth"),
		"greeter/esc":   `{"name":"greeter","version":"\u001b[31m","nodes":[{"id":"esc","address":"127.0.0.1:1"}]}`,
		"greeter/large": `{"name":"greeter","nodes":[{"id":"large","address":"127.0.0.1:1"}],"pad":"` + strings.Repeat("x", registry.MaxRecord) + `"}`,
		"odd":           record("odd", "odd"), "deep/er/a": record("deep", "er"),
	} {
		put(key, value)
	}
	for _, path := range []string{"greeter/closed", "closed"} {
		must(t, second(client.Create(prefix+"/"+path, []byte(record("greeter", "closed")), 0, zk.DigestACL(zk.PermAll, "other", "word"))))
	}
	put("greeter/b", record("greeter", "b"))
	registrytest.Expect(t, sets, "the nodes alone", registrytest.IDs("a", "b"))
	put("greeter/a", "junk")
	registrytest.Expect(t, sets, "one node less", registrytest.IDs("b"))
	put("auth/b", record("auth", "b")) // an id of two services shows once, with the first
	registrytest.Expect(t, sets, "the first", func(s registrytest.Set) bool { return registrytest.IDs("b")(s) && s.Nodes[0].Service == "auth" })
	must(t, client.Delete(prefix+"/auth/b", -1))
	registrytest.Expect(t, sets, "the other", func(s registrytest.Set) bool { return registrytest.IDs("b")(s) && s.Nodes[0].Service == "greeter" })
	if nodes, err := r.List(t.Context()); err != nil || len(nodes) != 1 {
		t.Errorf("List gave %+v, %v", nodes, err)
	}
	if log := said.String(); !strings.Contains(log, "records=13") || !strings.Contains(log, "/deep/er") || !strings.Contains(log, prefix+"/closed: ") {
		t.Errorf("the logger was told\n%s", log)
	}
}

// A service's folder goes when its last node has gone, and comes back with the next; a watch sees that one.
func TestFolderGoes(t *testing.T) {
	t.Parallel()
	addr, prefix := own(t).Addr, prefixOf(t) // one that looks for such folders often
	client := raw(t, addr)
	r := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix})
	sets, all := registrytest.Follow(t, r, "greeter"), registrytest.Follow(t, r, "")
	for range 2 {
		must(t, r.Register(t.Context(), node("a"), 0))
		registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
		registrytest.Expect(t, all, "the node", registrytest.IDs("a"))
		must(t, r.Deregister(t.Context(), node("a")))
		registrytest.Eventually(t, "the folder goes", func() bool { there, _, err := client.Exists(prefix + "/greeter"); return err == nil && !there })
		registrytest.Expect(t, sets, "no node", registrytest.IDs())
		registrytest.Expect(t, all, "no node", registrytest.IDs())
	}
}
