//go:build !race

package vom_test

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/codec/vom"
)

// TestAllocations is not for the race detector, under which a sync.Pool forgets at random.
func TestAllocations(t *testing.T) {
	c, v, dst, number, wide := vom.New(), &Seven{Service: "s", ID: 3, Body: []byte("x")}, make([]byte, 0, 1<<10), new(float64), new(Wide)
	one, err := c.Append(nil, 1.5)
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := c.Append(nil, Wide{B: true, U8: 1, I64: -5, F32: 1, Arr: [2]int16{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func() error{
		"Append":           func() error { _, err := c.Append(dst, v); return err },
		"Unmarshal":        func() error { return c.Unmarshal(one, number) },
		"Unmarshal struct": func() error { return c.Unmarshal(numbers, wide) },
		"read nothing":     func() error { return c.Unmarshal(nil, number) },
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
