package local_test

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
)

// FuzzDecode: whatever stands in a file, what is taken from it is a node that may be announced, under its own name.
func FuzzDecode(f *testing.F) {
	r, err := local.New(local.Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = r.Close() })
	full := node("greeter", "g-1")
	full.Endpoints = []registry.Endpoint{endpoint("Say.Hello")}
	name := local.FileName("g-1")
	for _, data := range [][]byte{
		r.Record(full), r.Record(node("greeter", "g-1")), r.RecordElsewhere(full), r.Record(full)[:50],
		nil, []byte("null"), []byte("[]"), []byte(`{"version":1}`), []byte(`{"version":1,"node":{"endpoints":[{"request":{"values":[null]}}]}}`),
	} {
		f.Add(name, data)
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		n, err := local.DecodeNode(name, data)
		if err != nil {
			return
		}
		if err := registry.Validate(n); err != nil {
			t.Error(err)
		}
		if local.FileName(n.ID) != name {
			t.Errorf("node %q of file %q", n.ID, name)
		}
		if !n.Equal(n.Clone()) {
			t.Errorf("node %+v is not itself", n)
		}
	})
}
