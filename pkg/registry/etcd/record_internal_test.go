package etcd

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// FuzzDecode: what is read is a valid node of its key, and comes back from what is written of it.
func FuzzDecode(f *testing.F) {
	f.Add("greeter/a", []byte(`{"name":"greeter","version":"1","metadata":{"zone":"a"},"endpoints":[{"name":"Say.Hello","request":{"name":"R","type":"R","values":[{"name":"n","type":"string","values":null}]},"response":null,"metadata":{}}],"nodes":[{"id":"a","address":"h:1","metadata":{"protocol":"mucp"}}]}`))
	f.Add("micro.http.broker/a-b", []byte(`{"name":"micro.http.broker","metadata":null,"endpoints":null,"nodes":[{"id":"a/b","address":"h:1","metadata":null}]}`))
	f.Add("greeter/a", []byte(`{"name":"greeter","nodes":[null]}`))
	f.Add("", []byte(`null`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		n, err := decode(defaultPrefix, defaultPrefix+key, value)
		if err != nil {
			return
		}
		if err := registry.Validate(n); err != nil {
			t.Fatal(err)
		}
		written, err := record.Encode(n)
		if err != nil {
			return // written it is larger than what was read
		}
		if again, err := decode(defaultPrefix, defaultPrefix+key, []byte(written)); err != nil || !again.Equal(n) {
			t.Errorf("read\n%+v\nand from what is written of it\n%+v, %v", n, again, err)
		}
	})
}
