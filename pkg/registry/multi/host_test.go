package multi_test

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/registry/multi"
)

// hosted is a registry that says where this machine is reached.
type hosted struct {
	registry.Registry
	host string
}

func (h hosted) Host() (string, bool) { return h.host, h.host != "" }

func TestHost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		members []registry.Registry
		want    string
	}{
		"no member tells":      {[]registry.Registry{memory.New()}, ""},
		"one that has none":    {[]registry.Registry{hosted{memory.New(), ""}}, ""},
		"the first that does":  {[]registry.Registry{memory.New(), hosted{memory.New(), ""}, hosted{memory.New(), "10.0.0.1"}, hosted{memory.New(), "10.0.0.2"}}, "10.0.0.1"},
		"a member beside none": {[]registry.Registry{hosted{memory.New(), "10.0.0.1"}, memory.New()}, "10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var members []multi.Member
			for i, r := range tt.members {
				members = append(members, multi.Member{Name: string(rune('a' + i)), Registry: r})
			}
			r, err := multi.New(members...)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if host, ok := r.Host(); host != tt.want || ok != (tt.want != "") {
				t.Errorf("Host gave %q, %v, want %q", host, ok, tt.want)
			}
		})
	}
}
