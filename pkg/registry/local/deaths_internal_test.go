package local

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// CheckDeaths fills the memory of deaths.
func CheckDeaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deaths
		for i := range 2 * maxDeaths {
			d.note(fmt.Sprint(i), record{}, i%2 == 0)
		}
		d.note("1", record{}, true) // of one file the first is kept, and what is sure
		d.confirm("3")
		d.confirm("nobody")
		for name, want := range map[string]bool{"0": true, "1": true, "3": true, "5": false} {
			if l, ok := d.of(name); !ok || l.sure != want {
				t.Errorf("%s: %+v, %v", name, l, ok)
			}
		}
		if len(d.lost) != maxDeaths {
			t.Errorf("%d deaths are remembered, limit %d", len(d.lost), maxDeaths)
		}
		d.revoke("0")
		time.Sleep(rememberDeaths + time.Second)
		for _, name := range []string{"0", "1"} {
			if l, ok := d.of(name); ok {
				t.Errorf("after %v: %+v", rememberDeaths, l)
			}
		}
		d.note("x", record{}, true)
		d.note("y", record{}, true)
		if len(d.lost) > 2 {
			t.Errorf("%d deaths are remembered, two are known", len(d.lost))
		}
	})
}
