package nats

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/registry"
)

// FuzzTold: whatever is announced or asked is nothing, or valid nodes and names.
func FuzzTold(f *testing.F) {
	f.Add([]byte(`{"Service":{"name":"greeter","version":"1","metadata":null,"endpoints":null,"nodes":[{"id":"a","address":"h:1","metadata":{"k":"v"}}]},"Action":"create"}`))
	f.Add([]byte(`{"Service":{"name":"greeter"},"Action":"get"}`))
	f.Add([]byte(`{"Service":null,"Action":"list"}`))
	f.Add([]byte(`{"Service":{"name":"greeter","nodes":[null,{"id":"../x"}]},"Action":"delete"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		nodes, _, _ := told(&nats.Msg{Data: data})
		for _, n := range nodes {
			if err := registry.Validate(n); err != nil {
				t.Errorf("%q is told to be a node: %v", data, err)
			}
		}
		if _, ok := asked(&nats.Msg{Data: data}); ok {
			t.Errorf("%q is a question, and says not whom to answer", data)
		}
		if service, ok := asked(&nats.Msg{Data: data, Reply: "x"}); ok && service != "" {
			_ = query("q", "r", service)
		}
	})
}
