package interop_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
)

// service is what go-micro's registry gives of one.
type service struct {
	Name, Version string
	Endpoints     []endpoint
	Nodes         []node
}

type endpoint struct{ Name string }

type node struct {
	ID, Address string
	Metadata    map[string]string
}

// get asks go-micro's registry, again where it has missed an answer: it waits 100 ms, and asks once.
func (p *peer) get(t *testing.T, name string) []service {
	t.Helper()
	for range 20 {
		a, err := p.do("get " + name)
		must(t, err)
		var s []service
		if a.Error == nil && json.Unmarshal(a.Reply, &s) == nil && len(s) > 0 {
			return s
		}
	}
	t.Fatalf("%s does not find %s", p.name, name)
	return nil
}

// TestNamesWithDots: go-micro writes them as several labels of DNS.
func TestNamesWithDots(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	o := serve(t, "com.example.ours", nil)
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			name := "com.example." + p.of("theirs")
			testserver.GoMicroOf(t, p.version, "serve", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0", "-address", "127.0.0.1:0", "-version", "1.2.3", "-meta", "zone=a", name)
			nodes := o.found(t, name, 1)
			if len(nodes) != 1 || nodes[0].Version != "1.2.3" || nodes[0].Metadata["zone"] != "a" || !strings.HasPrefix(nodes[0].ID, name+"-") {
				t.Errorf("our registry has %+v", nodes)
			}
			rsp, err := client.Call[Response](t.Context(), o.Client(), name, "Say.Hello", &Request{Name: "x"})
			if err != nil || rsp.Msg != "Hello x from "+p.version {
				t.Errorf("our call gave %v, %v", rsp, err)
			}
			p := &peer{name: p.name, version: p.version, protocol: p.protocol}
			p.client = testserver.GoMicroOf(t, p.version, "client", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0")
			if s := p.get(t, o.Name()); s[0].Nodes[0].Address != o.Node().Address {
				t.Errorf("its registry has %+v", s)
			}
			if rsp, err := p.reply("application/json", "call "+o.Name()+` Say.Hello {"name":"x"}`); err != nil || rsp.Msg != "Hello x from ours" {
				t.Errorf("its call gave %v, %v", rsp, err)
			}
		})
	}
}

// longName is that of an endpoint, which no compression makes short.
func longName(i int) string { return fmt.Sprintf("Many.E%x", sha256.Sum256([]byte{byte(i)})) }

// TestManyEndpoints: what does not fit into a packet is left out of the record, and the service is found and called all the same.
func TestManyEndpoints(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	few, many := serve(t, "few", nil), made(t, "many")
	for i := range 100 {
		must(t, micro.Handle(many.Service, longName(i), func(_ context.Context, req *Request) (*Response, error) {
			return &Response{Msg: req.Name}, nil
		}))
	}
	many.run(t)
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			p := &peer{name: p.name, version: p.version, protocol: p.protocol}
			p.client = testserver.GoMicroOf(t, p.version, "client", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0")
			if s := p.get(t, few.Name()); !slices.ContainsFunc(s[0].Endpoints, func(e endpoint) bool { return e.Name == "Say.Hello" }) {
				t.Errorf("it has %+v of a service with few endpoints", s)
			}
			if s := p.get(t, many.Name()); len(s[0].Endpoints) >= 100 || s[0].Nodes[0].Address != many.Node().Address {
				t.Errorf("it has %+v of a service with many endpoints", s)
			}
			rsp, err := p.reply("application/json", "call many "+longName(99)+` {"name":"x"}`)
			if err != nil || rsp.Msg != "x" {
				t.Errorf("its call gave %v, %v", rsp, err)
			}
		})
	}
}

// TestGoodbyes: who leaves is known to have left at once, on both sides.
func TestGoodbyes(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	o := serve(t, "ours", nil)
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			theirs := testserver.GoMicroOf(t, p.version, "serve", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0", "-address", "127.0.0.1:0", p.of("theirs"))
			if nodes := o.found(t, p.of("theirs"), 1); len(nodes) != 1 {
				t.Fatal("it is not found")
			}
			theirs.Stop()
			gone := time.Now()
			for {
				if _, err := o.Registry().Get(t.Context(), p.of("theirs")); err != nil {
					break
				}
				if time.Since(gone) > 2*time.Second {
					t.Fatal("it has left, and our registry has it")
				}
			}
			p := &peer{name: p.name, version: p.version}
			p.client = testserver.GoMicroOf(t, p.version, "client", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0")
			if _, err := p.do("watch leaving"); err != nil {
				t.Fatal(err)
			}
			leaving := serve(t, "leaving", nil)
			id := leaving.Node().ID
			wants(t, p, "create", id)
			leaving.stop()
			wants(t, p, "delete", id)
		})
	}
}

// wants waits until go-micro's watcher tells something of a node.
func wants(t *testing.T, p *peer, action, id string) {
	t.Helper()
	for end := time.After(wait); ; {
		select {
		case text := <-p.client.Told("event"):
			var e struct {
				Action  string
				Service service
			}
			must(t, json.Unmarshal([]byte(text), &e))
			if e.Action == action && slices.ContainsFunc(e.Service.Nodes, func(n node) bool { return n.ID == id }) {
				return
			}
		case <-end:
			t.Fatalf("its watcher does not tell %s of %s", action, id)
		}
	}
}

// TestChangedRecord: go-micro asks for what is there each time its cache is over, and gets what a record of ours has become.
func TestChangedRecord(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	o := serve(t, "ours", nil)
	n := registry.Node{ID: "changing-1", Service: "changing", Version: "1", Address: "127.0.0.1:1", Metadata: map[string]string{"zone": "a"}}
	must(t, o.Registry().Register(t.Context(), n, time.Minute))
	for i, p := range peers {
		p.client = testserver.GoMicroOf(t, p.version, "client", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0")
		for _, zone := range []string{fmt.Sprint("b", i), fmt.Sprint("c", i)} {
			n.Metadata = map[string]string{"zone": zone}
			must(t, o.Registry().Register(t.Context(), n, time.Minute))
			if s := p.get(t, "changing"); s[0].Nodes[0].Metadata["zone"] != zone {
				t.Errorf("%s has %+v", p.name, s)
			}
		}
	}
}

// TestTheirsKilled: go-micro's own registries keep a node that was killed for as long as they run. Our callers go to the node that is left,
// and who only asks for the service is told no more of the other. Who watches it is told for two minutes more, as its record has it.
func TestTheirsKilled(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			name, asks, calls := p.of("theirs"), serve(t, "asks", nil), serve(t, "calls", nil)
			begin := func() *testserver.Peer {
				return testserver.GoMicroOf(t, p.version, "serve", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0", "-address", "127.0.0.1:0", name)
			}
			begin()
			killed := begin()
			for _, o := range []*ours{asks, calls} {
				if nodes := o.found(t, name, 2); len(nodes) != 2 {
					t.Fatal("they are not found")
				}
			}
			call := func() {
				for range 10 {
					if _, err := client.Call[Response](t.Context(), calls.Client(), name, "Say.Hello", &Request{Name: "x"}, client.Idempotent()); err != nil {
						t.Error(err)
					}
				}
			}
			call()
			killed.Kill()
			call()
			if nodes := asks.found(t, name, 1); len(nodes) != 1 {
				t.Error("our registry has the dead node")
			}
		})
	}
}
