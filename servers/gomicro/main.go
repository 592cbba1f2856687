// Program gomicro is go-micro's own registry on NATS, for the test that both see each other, and with "broker" its own broker there. The
// registry announces a service, and takes orders by standard input, one a line: "get NAME", "list", "renew", "leave"; each is answered by
// a line of JSON. Every event of its watcher is a line that begins with "event ".
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"

	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/nats"
)

var out sync.Mutex

// say writes a line: a prefix, and a value or an error as JSON.
func say(prefix string, value any, err error) {
	out.Lock()
	defer out.Unlock()
	if err != nil {
		value = err.Error()
	}
	data, _ := json.Marshal(value)
	fmt.Println(prefix + string(data))
}

// usage: gomicro ADDRESS QUERY-SUBJECT WATCH-SUBJECT NAME NODE
func main() {
	if os.Args[1] == "broker" {
		if err := runBroker(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			say("", nil, err)
			os.Exit(1)
		}
		return
	}
	r := nats.NewNatsRegistry(registry.Addrs(os.Args[1]), nats.QueryTopic(os.Args[2]), nats.WatchTopic(os.Args[3]))
	own := &registry.Service{
		Name: os.Args[4], Version: "latest",
		Nodes: []*registry.Node{{Id: os.Args[5], Address: "10.0.0.7:18080", Metadata: map[string]string{"protocol": "mucp"}}},
		Endpoints: []*registry.Endpoint{{
			Name: "Say.Hello", Metadata: map[string]string{},
			Request:  &registry.Value{Name: "Req", Type: "Req", Values: []*registry.Value{{Name: "name", Type: "string"}}},
			Response: &registry.Value{Name: "Rsp", Type: "Rsp"},
		}},
	}
	w, err := r.Watch()
	if err != nil {
		say("", nil, err)
		os.Exit(1)
	}
	go func() {
		for {
			e, err := w.Next()
			if err != nil {
				return
			}
			say("event ", e, nil)
		}
	}()
	say("", "ready", r.Register(own))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch verb, name, _ := strings.Cut(in.Text(), " "); verb {
		case "get":
			s, err := r.GetService(name)
			say("", s, err)
		case "list":
			s, err := r.ListServices()
			say("", s, err)
		case "renew":
			say("", "renewed", r.Register(own))
		case "leave":
			say("", "left", r.Deregister(own))
		}
	}
}
