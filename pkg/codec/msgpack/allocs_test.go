//go:build !race

package msgpack_test

import (
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/codec/msgpack"
)

// TestAllocations is not for the race detector, under which a sync.Pool forgets at random.
func TestAllocations(t *testing.T) {
	c, dst, one, number := msgpack.Strict(), make([]byte, 0, 1<<10), []byte{5}, new(float64)
	v := &request{Name: "Ada", Times: 3, Tags: []string{"a"}, Data: []byte{1}, At: time.UnixMilli(5), Next: &request{}}
	for name, run := range map[string]func() error{
		"Append":       func() error { _, err := c.Append(dst, v); return err },
		"Unmarshal":    func() error { return c.Unmarshal(one, number) },
		"read nothing": func() error { return c.Unmarshal(nil, number) },
	} {
		if n := testing.AllocsPerRun(1000, func() {
			if err := run(); err != nil {
				t.Error(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
