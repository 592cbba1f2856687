package nats_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/nats"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// theirs is what go-micro v5 says of a service with a stream and a subscriber, and of its broker, two of whose nodes are one process's.
const (
	theirID = "greeter-f4b983c9-29df-41d1-905b-6c8e03ee560b"
	theirs  = `{"name":"greeter","version":"latest","metadata":null,"endpoints":[` +
		`{"request":{"name":"HelloRequest","type":"HelloRequest","values":[{"name":"name","type":"string","values":null},{"name":"tags","type":"[]string","values":null}]},` +
		`"response":{"name":"HelloResponse","type":"HelloResponse","values":[{"name":"text","type":"string","values":null}]},"metadata":{},"name":"Say.Hello"},` +
		`{"request":{"name":"Context","type":"Context","values":null},"response":{"name":"Stream","type":"Stream","values":null},"metadata":{"stream":"true"},"name":"Say.Count"}],` +
		`"nodes":[{"metadata":{"broker":"http","protocol":"mucp","registry":"nats","server":"mucp","transport":"http"},"id":"` + theirID + `","address":"10.0.0.7:18080"}]}`
	theirBroker = `{"name":"micro.http.broker","version":"ff.http.broadcast","metadata":{"zone":"a"},"endpoints":null,` +
		`"nodes":[{"metadata":{"broker":"http","topic":"users/created"},"id":"users/created-33d511ab","address":"10.0.0.7:18081"},` +
		`{"metadata":{"broker":"http","topic":"users/gone"},"id":"users/gone-33d511ab","address":"10.0.0.7:18081"}]}`
)

// TestReadsGoMicro: its nodes are found, listed, watched, and gone when it says so. It answers questions and announces, and leaves a question
// for what it has not without an answer.
func TestReadsGoMicro(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	c := raw(t, addr)
	asked := make(chan string, 100)
	_, err := c.Subscribe(prefix+".query", func(m *natsgo.Msg) {
		asked <- string(m.Data)
		var q struct { // as go-micro reads it
			Service *struct {
				Name string `json:"name"`
			}
			Action string
		}
		if json.Unmarshal(m.Data, &q) != nil {
			return
		}
		for name, service := range map[string]string{"greeter": theirs, "micro.http.broker": theirBroker} {
			if q.Action == "list" || q.Action == "get" && q.Service.Name == name {
				_ = m.Respond([]byte(service))
			}
		}
	})
	must(t, err)
	must(t, c.Flush())
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	must(t, r.Register(t.Context(), node("a"), 0))
	nodes, err := r.Get(t.Context(), "greeter")
	must(t, err)
	want := registry.Node{
		ID: theirID, Service: "greeter", Version: "latest", Address: "10.0.0.7:18080",
		Metadata: map[string]string{"broker": "http", "protocol": "mucp", "registry": "nats", "server": "mucp", "transport": "http"},
		Endpoints: []registry.Endpoint{
			{Name: "Say.Hello", Metadata: map[string]string{},
				Request: &registry.Value{Name: "HelloRequest", Type: "HelloRequest",
					Values: []*registry.Value{{Name: "name", Type: "string"}, {Name: "tags", Type: "[]string"}}},
				Response: &registry.Value{Name: "HelloResponse", Type: "HelloResponse", Values: []*registry.Value{{Name: "text", Type: "string"}}}},
			{Name: "Say.Count", Metadata: map[string]string{"stream": "true"},
				Request: &registry.Value{Name: "Context", Type: "Context"}, Response: &registry.Value{Name: "Stream", Type: "Stream"}},
		},
	}
	if len(nodes) != 2 || !nodes[1].Equal(want) {
		t.Errorf("Get gave\n%+v\nwant ours and\n%+v", nodes, want)
	}
	if q := <-asked; q != `{"Service":{"name":"greeter","version":"","metadata":null,"endpoints":null,"nodes":null},"Action":"get"}` {
		t.Errorf("it was asked %s", q)
	}
	all := list(t, r)
	if q := <-asked; q != `{"Service":null,"Action":"list"}` {
		t.Errorf("it was asked %s", q)
	}
	if len(all) != 4 || all[2].ID != "users/created-33d511ab" || all[2].Metadata["topic"] != "users/created" || all[2].Metadata["zone"] != "a" || all[3].ID != "users/gone-33d511ab" {
		t.Errorf("List gave %+v", all)
	}
	if err := r.Register(t.Context(), registry.Node{ID: theirID, Service: "greeter", Address: "127.0.0.1:1"}, 0); err == nil {
		t.Error("their id is taken")
	}

	sets := registrytest.Follow(t, r, "greeter")
	registrytest.Expect(t, sets, "both", registrytest.IDs("a", theirID))
	say := func(action, service string) {
		must(t, c.Publish(prefix+".watch", fmt.Appendf(nil, `{"Service":%s,"Action":%q}`, service, action)))
	}
	second := strings.NewReplacer("f4b983c9", "second").Replace(theirs)
	say("create", second)
	registrytest.Expect(t, sets, "the second", func(s registrytest.Set) bool { return len(s.Nodes) == 3 })
	say("update", strings.NewReplacer("latest", "newer").Replace(second))
	registrytest.Expect(t, sets, "its other version", func(s registrytest.Set) bool { return len(s.Nodes) == 3 && s.Nodes[2].Version == "newer" })
	for _, junk := range []string{"null", "junk", `{}`, `{"name":"greeter"}`, `{"name":"greeter","nodes":[null]}`, `{"name":"../x","nodes":[{"id":"x","address":"y:1"}]}`} {
		say("create", junk)
		say("delete", junk)
		must(t, c.Publish(prefix+".watch", []byte(junk)))
		must(t, c.PublishRequest(prefix+".query", "elsewhere", []byte(junk)))
		must(t, c.PublishRequest(prefix+".node.a", "elsewhere", []byte(junk)))
	}
	say("delete", second)
	say("delete", strings.NewReplacer(theirID, "a").Replace(theirs)) // it is not theirs
	registrytest.Expect(t, sets, "both", registrytest.IDs("a", theirID))
	say("delete", theirs)
	registrytest.Expect(t, sets, "ours alone", registrytest.IDs("a"))
}

// TestAnswersGoMicro: to its questions, with what it reads, and no more than it knows.
func TestAnswersGoMicro(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	c := raw(t, addr)
	events, err := c.SubscribeSync(prefix + ".watch")
	must(t, err)
	must(t, c.Flush())
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	n := node("greeter/topic/1")
	n.Endpoints = []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "R", Type: "R", Values: []*registry.Value{{Name: "name", Type: "string"}}}}}
	must(t, r.Register(t.Context(), n, time.Minute))
	must(t, r.Register(t.Context(), registry.Node{ID: "bare-1", Service: "bare", Address: "127.0.0.1:1"}, 0))
	const bare = `{"name":"bare","version":"","metadata":{},"endpoints":[],"nodes":[{"id":"bare-1","address":"127.0.0.1:1","metadata":{}}]}`
	const full = `{"name":"greeter","version":"1.0.0","metadata":{},` +
		`"endpoints":[{"name":"Say.Hello","request":{"name":"R","type":"R","values":[{"name":"name","type":"string","values":null}]}}],` +
		`"nodes":[{"id":"greeter/topic/1","address":"127.0.0.1:4711","metadata":{"protocol":"mucp"}}]}`
	next := func(sub *natsgo.Subscription, want string) {
		t.Helper()
		m, err := sub.NextMsg(wait)
		must(t, err)
		if string(m.Data) != want {
			t.Errorf("it said\n%s\nwant\n%s", m.Data, want)
		}
	}
	next(events, `{"Service":`+full+`,"Action":"create"}`)
	next(events, `{"Service":`+bare+`,"Action":"create"}`)
	inbox := c.NewInbox()
	answers, err := c.SubscribeSync(inbox)
	must(t, err)
	ask := func(q string) { must(t, c.PublishRequest(prefix+".query", inbox, []byte(q))) }
	ask(`{"Service":{"name":"greeter","version":"","metadata":null,"endpoints":null,"nodes":null},"Action":"get"}`)
	next(answers, full)
	ask(`{"Service":{"name":"nobody","version":"","metadata":null,"endpoints":null,"nodes":null},"Action":"get"}`)
	ask(`{"Service":{"name":"bare","version":"","metadata":null,"endpoints":null,"nodes":null},"Action":"get"}`)
	next(answers, bare)
	must(t, r.Deregister(t.Context(), n))
	next(events, `{"Service":`+full+`,"Action":"delete"}`)
	ask(`{"Service":null,"Action":"list"}`)
	next(answers, bare)
	must(t, r.Close())
	next(events, `{"Service":`+bare+`,"Action":"delete"}`)
}

// TestMixedFleet: go-micro's own registry and ours see each other's nodes come, change and go.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	registrytest.RunFleet(t, registrytest.Fleet{
		Theirs: func(t *testing.T) registrytest.Peer {
			return testserver.GoMicro(t, "registry", "nats://"+addr+"?prefix="+prefix)
		},
		Ours: func(t *testing.T) registry.Registry {
			return open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
		},
		Spawn:   func(t *testing.T, id string) func() { return registrytest.Spawn(t, node(id), addr, prefix) },
		NoLease: true,
	})
}
