//go:build !race

package json_test

import (
	stdjson "encoding/json"
	"testing"

	"github.com/cb02dfca/micro/pkg/codec/json"
)

// TestAllocations is not for the race detector, under which a sync.Pool forgets at random.
func TestAllocations(t *testing.T) {
	c, v, dst, number := json.Strict(), &request{Name: "Ada", Times: 3, Tags: []string{"a"}}, make([]byte, 0, 1<<10), new(float64)
	raw, one := any(stdjson.RawMessage(`{"a":[1]}`)), []byte("1")
	for name, run := range map[string]func() error{
		"Append":       func() error { _, err := c.Append(dst, v); return err },
		"Append raw":   func() error { _, err := c.Append(dst, raw); return err },
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
