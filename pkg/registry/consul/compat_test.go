package consul_test

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/consul"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// What go-micro v5 registers for a service with a stream, and for a node of its broker, whose id and topic are paths.
const (
	theirID     = "greeter-f4b983c9-29df-41d1-905b-6c8e03ee560b"
	theirBroker = "users/created-33d511ab-f383-41b6-86cd-f22b6729c68b"
)

var theirs = []string{
	`{"ID":"` + theirID + `","Name":"greeter","Tags":[` +
		`"t-789caa564a2acacf4e2d52b252ca28292950aa05040000ffff364d0600",` +
		`"t-789caa562a28ca2fc94fcecf51b252ca2d4d2e50aa05040000ffff46a906e2",` +
		`"e-789c848e410ac2301045eff2d7c103e404ae7559ba187028c234ad99895842ee2e961ac5065c0d3cdef05f46e45b6235f88c4023c3e3c822d369c30eb6cc0d7a2749acf05d7d5b4fd5d5e2350c5f624822c555db68d08fddf56dbf2f0e91759e82f2be70e3bf8915ef1b8d1ff6aff1b539b2d1858ce07371efe7332d877502e5190000ffffd7b86a52",` +
		`"e-789c5ccc4d0ac2401403e0bb643d7880d9f6089ee081d9cd4f9d97279632771711aa7699902f3b06ef4117f28e6695c8587a139f4282b6f5bf7858093a728b5266c2a0afbd397ff0558356bff6c8275a29bb99ec4dfdb3c9d00862a6e3cbb6cbd2a309f3150000fffff1c7391f",` +
		`"v-789cca492c492d2e01040000ffff08cc028e"],` +
		`"Meta":{"broker":"http","protocol":"mucp"},"Port":18080,"Address":"10.0.0.7","Check":{"TTL":"30s","DeregisterCriticalServiceAfter":"1m5s"}}`,
	`{"ID":"` + theirBroker + `","Name":"micro.http.broker","Tags":[` +
		`"t-789caa564a2acacf4e2d52b252ca28292950aa05040000ffff364d0600",` +
		`"t-789caa562a4e4d2e2d4a55b2524a4bcc294e55aa05040000ffff3c75064d",` +
		`"t-789caa562ac92fc84c56b2522a2d4e2d2ad64f2e4a4d2c494d51aa05040000ffff749b0913",` +
		`"v-789c4a4bd3cb282929d04b2aca4f4c494e2c2e01040000ffff39d7069c"],` +
		`"Meta":{"broker":"http","secure":"false","topic":"users/created"},"Port":18081,"Address":"10.0.0.7","Check":{"TTL":"30s","DeregisterCriticalServiceAfter":"1m5s"}}`,
}

// put registers a service as it is written, and passes its check where it has one.
func put(t *testing.T, addr, id, body string) {
	t.Helper()
	if code, said := request(http.MethodPut, "http://"+addr+"/v1/agent/service/register", body); code != http.StatusOK {
		t.Fatalf("%s: %d %s", body, code, said)
	}
	if strings.Contains(body, `"Check"`) {
		request(http.MethodPut, "http://"+addr+"/v1/agent/check/pass/service:"+id, "")
	}
}

// TestReadsGoMicro: its nodes are listed, found, watched, and gone when their check is critical.
func TestReadsGoMicro(t *testing.T) {
	t.Parallel()
	addr := addrOf(t)
	r := open(t, consul.Options{Address: addr})
	must(t, r.Register(t.Context(), node("a"), 0))
	sets := registrytest.Follow(t, r, "greeter")
	registrytest.Expect(t, sets, "ours", registrytest.IDs("a"))
	put(t, addr, theirID, theirs[0])
	put(t, addr, theirBroker, theirs[1])
	got := registrytest.Expect(t, sets, "both", registrytest.IDs("a", theirID)).Nodes[1]
	want := registry.Node{
		ID: theirID, Service: "greeter", Version: "latest", Address: "10.0.0.7:18080",
		Metadata: map[string]string{"broker": "http", "protocol": "mucp"},
		Endpoints: []registry.Endpoint{
			{Name: "Say.Hello", Metadata: map[string]string{},
				Request: &registry.Value{Name: "HelloRequest", Type: "HelloRequest",
					Values: []*registry.Value{{Name: "name", Type: "string"}, {Name: "tags", Type: "[]string"}}},
				Response: &registry.Value{Name: "HelloResponse", Type: "HelloResponse", Values: []*registry.Value{{Name: "text", Type: "string"}}}},
			{Name: "Say.Count", Metadata: map[string]string{"stream": "true"},
				Request: &registry.Value{Name: "Context", Type: "Context"}, Response: &registry.Value{Name: "Stream", Type: "Stream"}},
		},
	}
	if !got.Equal(want) {
		t.Errorf("read\n%+v\nwant\n%+v", got, want)
	}
	registrytest.Eventually(t, "all are listed", func() bool { all, err := r.List(t.Context()); return err == nil && len(all) == 3 })
	all, err := r.List(t.Context())
	must(t, err)
	broker := registry.Node{
		ID: theirBroker, Service: registry.BrokerService, Version: "ff.http.broadcast", Address: "10.0.0.7:18081",
		Metadata: map[string]string{"broker": "http", "secure": "false", "topic": "users/created"},
	}
	if len(all) != 3 || !all[1].Equal(want) || !all[2].Equal(broker) {
		t.Errorf("List gave %+v", all)
	}
	if err := r.Register(t.Context(), registry.Node{ID: theirID, Service: "greeter", Address: "127.0.0.1:1"}, 0); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Register of their id gave %v, want ErrConflict", err)
	}
	if err := r.Deregister(t.Context(), want); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Deregister of their node gave %v, want ErrConflict", err)
	}
	request(http.MethodPut, "http://"+addr+"/v1/agent/check/fail/service:"+theirID, "")
	registrytest.Expect(t, sets, "ours alone", registrytest.IDs("a"))
	request(http.MethodPut, "http://"+addr+"/v1/agent/check/warn/service:"+theirID, "")
	registrytest.Expect(t, sets, "both", registrytest.IDs("a", theirID))
}

// TestReadsOldGoMicro: tags whose text is plain.
func TestReadsOldGoMicro(t *testing.T) {
	t.Parallel()
	addr := addrOf(t)
	r := open(t, consul.Options{Address: addr})
	put(t, addr, "old", `{"ID":"old","Name":"greeter","Port":80,"Tags":["t={\"zone\":\"a\"}","t={\"protocol\":\"mucp\"}","e={\"name\":\"Say.Hello\",\"request\":null,\"response\":null,\"metadata\":{}}","v=0.9"]}`)
	// Of two forms the first counts; tags that are none of these say nothing.
	mixed, err := json.Marshal(map[string]any{"ID": "mixed", "Name": "greeter", "Address": "10.0.0.1", "Port": 80,
		"Tags": []string{"prod", "v1", "", "t", "t-shirt", "e-", "e=null", "t={}", pack("t", `{"a":"1"}`), "v=1", "v=2", pack("v", "3"), "x-789c"}})
	must(t, err)
	put(t, addr, "mixed", string(mixed))
	want := []registry.Node{
		{ID: "mixed", Service: "greeter", Version: "1", Address: "10.0.0.1:80"},
		{ID: "old", Service: "greeter", Version: "0.9", Address: "127.0.0.1:80", Metadata: map[string]string{"zone": "a", "protocol": "mucp"},
			Endpoints: []registry.Endpoint{{Name: "Say.Hello"}}},
	}
	got := registrytest.Expect(t, registrytest.Follow(t, r, "greeter"), "both", func(s registrytest.Set) bool { return len(s.Nodes) == 2 }).Nodes
	for i := range want {
		if !got[i].Equal(want[i]) {
			t.Errorf("read\n%+v\nwant\n%+v", got[i], want[i])
		}
	}
}

// pack makes a tag as go-micro does.
func pack(kind, text string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return kind + "-" + hex.EncodeToString(b.Bytes())
}

// unpack reads a tag as go-micro does.
func unpack(t *testing.T, tag string) string {
	t.Helper()
	data, err := hex.DecodeString(tag[2:])
	must(t, err)
	r, err := zlib.NewReader(bytes.NewReader(data))
	must(t, err)
	text, err := io.ReadAll(r)
	must(t, err)
	return tag[:2] + string(text)
}

// agentService is a service as the agent shows it; empty where there is none.
type agentService struct {
	ID, Service, Address string
	Port                 int
	Tags                 []string
	Meta                 map[string]string
}

func serviceOf(t *testing.T, addr, id string) (s agentService) {
	t.Helper()
	if code, body := request(http.MethodGet, "http://"+addr+"/v1/agent/service/"+id, ""); code == http.StatusOK {
		must(t, json.Unmarshal([]byte(body), &s))
	}
	return s
}

// TestWritesAsGoMicro: the fields, tags and check that it writes, and reads.
func TestWritesAsGoMicro(t *testing.T) {
	t.Parallel()
	addr := addrOf(t)
	r := open(t, consul.Options{Address: addr, TTL: 20 * time.Second})
	n := node("greeter/topic/1")
	n.Metadata[registry.MetaStarted] = "2026-01-02T03:04:05Z"
	n.Metadata["of which Consul takes none"] = "x"
	n.Endpoints = []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "R", Type: "R", Values: []*registry.Value{{Name: "name", Type: "string"}}}}}
	must(t, r.Register(t.Context(), n, time.Minute))
	must(t, r.Register(t.Context(), registry.Node{ID: "bare-1", Service: "bare", Address: "127.0.0.1:1"}, 0))
	for _, want := range []agentService{
		{ID: "greeter/topic/1", Service: "greeter", Address: "127.0.0.1", Port: 4711,
			Tags: []string{
				`t-{"of which Consul takes none":"x"}`, `t-{"protocol":"mucp"}`, `t-{"started":"2026-01-02T03:04:05Z"}`,
				`e-{"name":"Say.Hello","request":{"name":"R","type":"R","values":[{"name":"name","type":"string","values":null}]}}`,
				`v-1.0.0`,
			},
			Meta: map[string]string{"protocol": "mucp", "started": "2026-01-02T03:04:05Z"}},
		{ID: "bare-1", Service: "bare", Address: "127.0.0.1", Port: 1, Tags: []string{"v-"}, Meta: map[string]string{}},
	} {
		got := serviceOf(t, addr, want.ID)
		for i, tag := range got.Tags {
			got.Tags[i] = unpack(t, tag)
		}
		if got.Meta[consul.MetaOwner] == "" {
			t.Errorf("%s names no owner", want.ID)
		}
		delete(got.Meta, consul.MetaOwner)
		if got.ID != want.ID || got.Service != want.Service || got.Address != want.Address || got.Port != want.Port ||
			!slices.Equal(got.Tags, want.Tags) || !maps.Equal(got.Meta, want.Meta) {
			t.Errorf("there stands\n%+v\nwant\n%+v", got, want)
		}
		_, body := request(http.MethodGet, "http://"+addr+"/v1/agent/checks", "")
		var checks map[string]struct{ ServiceID, Status, Type string }
		must(t, json.Unmarshal([]byte(body), &checks))
		if c := checks["service:"+want.ID]; c.ServiceID != want.ID || c.Status != "passing" || c.Type != "ttl" {
			t.Errorf("the check is %+v", c)
		}
	}
	// go-micro's own bytes.
	must(t, r.Register(t.Context(), registry.Node{ID: "c", Service: "c", Version: "latest", Address: "127.0.0.1:1", Metadata: map[string]string{"broker": "http"}}, 0))
	if got, want := serviceOf(t, addr, "c").Tags, []string{"t-789caa564a2acacf4e2d52b252ca28292950aa05040000ffff364d0600", "v-789cca492c492d2e01040000ffff08cc028e"}; !slices.Equal(got, want) {
		t.Errorf("the tags are %q, want %q", got, want)
	}
}

// TestForeignServices: other programs' services are passed over, what is no node is left out, and told of.
func TestForeignServices(t *testing.T) {
	t.Parallel()
	addr, said := addrOf(t), &registrytest.Journal{}
	r := open(t, consul.Options{Address: addr, Logger: said.Logger()})
	all, sets := registrytest.Follow(t, r, ""), registrytest.Follow(t, r, "greeter")
	bomb := pack("t", `{"k":"`+strings.Repeat("x", 32<<20)+`"}`)
	for id, tags := range map[string][]string{
		"postgres": {"primary"}, "none": nil, "v": {"v-1.2", "v", "v8"},
		"esc": {"v=\x1b[31m"}, "bomb": {bomb, "v=1"}, "late-bomb": {"v=1", bomb}, "deep": {"v=1", "e=" + `{"name":"x","request":` + strings.Repeat(`{"values":[`, 40) + strings.Repeat("]}", 40) + "}"},
		"many": append(slices.Repeat([]string{pack("t", `{"k":"`+strings.Repeat("y", 4000)+`"}`)}, 20), "v=1"),
		"junk": append(slices.Repeat([]string{pack("t", strings.Repeat("z", 60_000))}, 2), "v=1"),
		"good": {"v=1"},
	} {
		body, err := json.Marshal(map[string]any{"ID": id, "Name": "greeter", "Address": "127.0.0.1", "Port": 80, "Tags": tags})
		must(t, err)
		put(t, addr, id, string(body))
	}
	must(t, r.Register(t.Context(), node("ours"), 0))
	registrytest.Expect(t, sets, "the nodes alone", registrytest.IDs("good", "ours"))
	registrytest.Expect(t, all, "the nodes alone", registrytest.IDs("good", "ours"))
	if nodes, err := r.List(t.Context()); err != nil || len(nodes) != 2 {
		t.Errorf("List gave %+v, %v", nodes, err)
	}
	if log := said.String(); !strings.Contains(log, "records=6") || !strings.Contains(log, "hold over 65536 bytes") {
		t.Errorf("the logger was told\n%s", log)
	}
}

// TestManyServices: a listing of more services than are asked for at one time.
func TestManyServices(t *testing.T) {
	t.Parallel()
	addr := addrOf(t)
	const size = 100
	for i := range size {
		id := fmt.Sprintf("service-%03d", i)
		put(t, addr, id, fmt.Sprintf(`{"ID":%q,"Name":%q,"Port":80,"Tags":["v=1"]}`, id, id))
	}
	r := open(t, consul.Options{Address: addr})
	registrytest.Eventually(t, "all are listed", func() bool { nodes, err := r.List(t.Context()); return err == nil && len(nodes) == size })
	all := registrytest.Follow(t, r, "")
	registrytest.Expect(t, all, "all nodes", func(s registrytest.Set) bool { return len(s.Nodes) == size })
	put(t, addr, "service-050", `{"ID":"service-050","Name":"service-050","Port":81,"Tags":["v=1"]}`) // its address alone
	registrytest.Expect(t, all, "the change", func(s registrytest.Set) bool {
		return len(s.Nodes) == size && strings.HasSuffix(s.Nodes[50].Address, ":81")
	})
}

// TestMixedFleet: go-micro's own registry and ours see each other's nodes come, change and go.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	addr := own(t).Addr
	registrytest.RunFleet(t, registrytest.Fleet{
		Theirs:    func(t *testing.T) registrytest.Peer { return testserver.GoMicro(t, "registry", "consul://"+addr) },
		Ours:      func(t *testing.T) registry.Registry { return open(t, consul.Options{Address: addr}) },
		Spawn:     func(t *testing.T, id string) func() { return registrytest.Spawn(t, node(id), addr) },
		FirstNode: true,
	})
}
