package etcd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/etcd"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// theirs is what go-micro v5 writes for a service with a stream and a subscriber, and for a node of its broker, whose id and
// topic are paths.
var theirs = map[string]string{
	"greeter/greeter-f4b983c9-29df-41d1-905b-6c8e03ee560b": `{"name":"greeter","version":"latest","metadata":null,"endpoints":[` +
		`{"request":{"name":"HelloRequest","type":"HelloRequest","values":[{"name":"name","type":"string","values":null},{"name":"tags","type":"[]string","values":null}]},` +
		`"response":{"name":"HelloResponse","type":"HelloResponse","values":[{"name":"text","type":"string","values":null}]},"metadata":{},"name":"Say.Hello"},` +
		`{"request":{"name":"Context","type":"Context","values":null},"response":{"name":"Stream","type":"Stream","values":null},"metadata":{"stream":"true"},"name":"Say.Count"},` +
		`{"request":{"name":"Event","type":"Event","values":[{"name":"text","type":"string","values":null}]},"response":null,"metadata":{"subscriber":"true","topic":"greeter.events"},"name":"Func"}],` +
		`"nodes":[{"metadata":{"broker":"http","protocol":"mucp","registry":"etcd","server":"mucp","transport":"http"},"id":"greeter-f4b983c9-29df-41d1-905b-6c8e03ee560b","address":"10.0.0.7:18080"}]}`,
	"micro.http.broker/users-created-33d511ab-f383-41b6-86cd-f22b6729c68b": `{"name":"micro.http.broker","version":"ff.http.broadcast","metadata":{"zone":"a"},"endpoints":null,` +
		`"nodes":[{"metadata":{"broker":"http","secure":"false","topic":"users/created"},"id":"users/created-33d511ab-f383-41b6-86cd-f22b6729c68b","address":"10.0.0.7:18081"}]}`,
}

// TestReadsGoMicro: its nodes are listed, found, watched, and gone with its lease.
func TestReadsGoMicro(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	etcdClient := raw(t, addr)
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	must(t, r.Register(t.Context(), node("a"), 0))
	sets := registrytest.Follow(t, r, "greeter")
	registrytest.Expect(t, sets, "ours", registrytest.IDs("a"))
	lease, err := etcdClient.Grant(t.Context(), 60)
	must(t, err)
	for key, value := range theirs {
		must(t, second(etcdClient.Put(t.Context(), prefix+key, value, clientv3.WithLease(lease.ID))))
	}
	const id = "greeter-f4b983c9-29df-41d1-905b-6c8e03ee560b"
	got := registrytest.Expect(t, sets, "both", registrytest.IDs("a", id)).Nodes[1]
	want := registry.Node{
		ID: id, Service: "greeter", Version: "latest", Address: "10.0.0.7:18080",
		Metadata: map[string]string{"broker": "http", "protocol": "mucp", "registry": "etcd", "server": "mucp", "transport": "http"},
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
	must(t, second(etcdClient.Revoke(t.Context(), lease.ID)))
	registrytest.Expect(t, sets, "ours alone", registrytest.IDs("a"))
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

// TestWritesAsGoMicro: under the keys where it looks, what it reads, and nothing that it does not know.
func TestWritesAsGoMicro(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	etcdClient := raw(t, addr)
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix, TTL: 20 * time.Second})
	n := node("greeter/topic/1")
	n.Metadata[registry.MetaStarted] = "2026-01-02T03:04:05Z"
	n.Endpoints = []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "R", Type: "R", Values: []*registry.Value{{Name: "name", Type: "string"}}}}}
	must(t, r.Register(t.Context(), n, time.Minute))
	must(t, r.Register(t.Context(), registry.Node{ID: "bare-1", Service: "bare", Address: "127.0.0.1:1"}, 0))
	for key, want := range map[string]string{
		"greeter/greeter-topic-1": `{"name":"greeter","version":"1.0.0","metadata":{},` +
			`"endpoints":[{"name":"Say.Hello","request":{"name":"R","type":"R","values":[{"name":"name","type":"string","values":null}]}}],` +
			`"nodes":[{"id":"greeter/topic/1","address":"127.0.0.1:4711","metadata":{"protocol":"mucp","started":"2026-01-02T03:04:05Z"}}]}`,
		"bare/bare-1": `{"name":"bare","version":"","metadata":{},"endpoints":[],"nodes":[{"id":"bare-1","address":"127.0.0.1:1","metadata":{}}]}`,
	} {
		rsp, err := etcdClient.Get(t.Context(), prefix+key)
		must(t, err)
		if len(rsp.Kvs) != 1 || string(rsp.Kvs[0].Value) != want {
			t.Fatalf("under %s stands\n%s\nwant\n%s", key, rsp.Kvs, want)
		}
		dec := json.NewDecoder(strings.NewReader(want))
		dec.DisallowUnknownFields()
		var s goMicroService
		must(t, dec.Decode(&s))
		if s.Metadata == nil || len(s.Nodes) != 1 || s.Nodes[0].Metadata == nil {
			t.Errorf("go-micro writes into maps that are missing: %+v", s)
		}
		ttl, err := etcdClient.TimeToLive(t.Context(), clientv3.LeaseID(rsp.Kvs[0].Lease))
		if err != nil || ttl.GrantedTTL != 20 {
			t.Errorf("the lease of %s is %d s, %v, want 20 s", key, ttl.GrantedTTL, err)
		}
	}
}

// TestForeignRecords: what is no node is left out, and told of; a changed record is what it is now.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	etcdClient, said := raw(t, addr), &registrytest.Journal{}
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix, Logger: said.Logger()})
	sets := registrytest.Follow(t, r, "")
	registrytest.Expect(t, sets, "an empty set", registrytest.IDs())
	record := func(service, id string) string {
		return fmt.Sprintf(`{"name":%q,"nodes":[{"id":%q,"address":"127.0.0.1:1"}]}`, service, id)
	}
	put := func(key, value string) { must(t, second(etcdClient.Put(t.Context(), prefix+key, value))) }
	put("greeter/a", record("greeter", "a"))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	for key, value := range map[string]string{
		"greeter/junk": "junk", "greeter/null": "null", "greeter/none": `{"name":"greeter"}`, "greeter/empty": "",
		"greeter/two":   `{"name":"greeter","nodes":[{"id":"two","address":"127.0.0.1:1"},{"id":"three","address":"127.0.0.1:1"}]}`,
		"greeter/nil":   `{"name":"greeter","nodes":[null]}`,
		"greeter/other": record("greeter", "another"), "greeter/auth": record("auth", "auth"),
		"greeter/esc":   `{"name":"greeter","version":"\u001b[31m","nodes":[{"id":"esc","address":"127.0.0.1:1"}]}`,
		"greeter/large": `{"name":"greeter","nodes":[{"id":"large","address":"127.0.0.1:1"}],"pad":"` + strings.Repeat("x", registry.MaxRecord) + `"}`,
		"odd":           record("odd", "odd"), "greeter/deep/er": record("greeter", "deep/er"),
	} {
		put(key, value)
	}
	put("greeter/b", record("greeter", "b"))
	registrytest.Expect(t, sets, "the nodes alone", registrytest.IDs("a", "b"))
	put("greeter/a", "junk")
	registrytest.Expect(t, sets, "one node less", registrytest.IDs("b"))
	put("auth/b", record("auth", "b")) // an id of two services shows once, with the first
	registrytest.Expect(t, sets, "the first", func(s registrytest.Set) bool { return registrytest.IDs("b")(s) && s.Nodes[0].Service == "auth" })
	must(t, second(etcdClient.Delete(t.Context(), prefix+"auth/b")))
	registrytest.Expect(t, sets, "the other", func(s registrytest.Set) bool { return registrytest.IDs("b")(s) && s.Nodes[0].Service == "greeter" })
	if nodes, err := r.List(t.Context()); err != nil || len(nodes) != 1 {
		t.Errorf("List gave %+v, %v", nodes, err)
	}
	if log := said.String(); !strings.Contains(log, "records=13") || !strings.Contains(log, "greeter/junk") {
		t.Errorf("the logger was told\n%s", log)
	}
}

// TestManyNodes: a listing of several pages.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	etcdClient := raw(t, addr)
	const size = 2500
	for from := 0; from < size; from += 100 {
		var ops []clientv3.Op
		for i := from; i < from+100; i++ {
			id := fmt.Sprintf("node-%04d", i)
			ops = append(ops, clientv3.OpPut(prefix+"greeter/"+id, fmt.Sprintf(`{"name":"greeter","nodes":[{"id":%q,"address":"127.0.0.1:1"}]}`, id)))
		}
		must(t, second(etcdClient.Txn(t.Context()).Then(ops...).Commit()))
	}
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	nodes, err := r.Get(t.Context(), "greeter")
	must(t, err)
	for i, n := range nodes {
		if n.ID != fmt.Sprintf("node-%04d", i) {
			t.Fatalf("node %d is %s", i, n.ID)
		}
	}
	if len(nodes) != size {
		t.Errorf("%d nodes, want %d", len(nodes), size)
	}
	registrytest.Expect(t, registrytest.Follow(t, r, ""), "all nodes", func(s registrytest.Set) bool { return len(s.Nodes) == size })
}

// TestMixedFleet: go-micro's own registry and ours see each other's nodes come, change and go. Its prefix is fixed, so they have an etcd to
// themselves.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	addr := own(t).Addr
	registrytest.RunFleet(t, registrytest.Fleet{
		Theirs: func(t *testing.T) registrytest.Peer { return testserver.GoMicro(t, "registry", "etcd://"+addr) },
		Ours:   func(t *testing.T) registry.Registry { return open(t, etcd.Options{Endpoints: []string{addr}}) },
		Spawn:  func(t *testing.T, id string) func() { return registrytest.Spawn(t, node(id), addr, "/micro/registry/") },
	})
}
