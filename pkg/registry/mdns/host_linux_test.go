package mdns_test

import (
	"testing"

	"github.com/cb02dfca/micro/internal/netspace"
	"github.com/cb02dfca/micro/pkg/registry/mdns"
)

// TestHost asks in a namespace: Host looks at the interfaces when it is called.
func TestHost(t *testing.T) {
	t.Parallel()
	m := netspace.New(t)
	for i, name := range []string{"first", "second"} {
		must(t, m.IP("link add "+name+" type veth peer name end-"+name))
		must(t, m.IP("addr add "+[]string{"10.78.1.1/24", "10.78.2.1/24"}[i]+" dev "+name))
	}
	look := func(o mdns.Options) (host string) {
		r, err := mdns.New(o)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		must(t, m.Do(func() error {
			got, ok := r.Host()
			if ok != (got != "") {
				t.Errorf("Host gave %q, %v", got, ok)
			}
			host = got
			return nil
		}))
		return host
	}
	lan, only := mdns.Options{Scope: mdns.LAN}, mdns.Options{Scope: mdns.LAN, Interfaces: []string{"first"}}
	want := func(when string, o mdns.Options, host string) {
		t.Helper()
		if got := look(o); got != host {
			t.Errorf("%s: Host of %+v gave %q, want %q", when, o, got, host)
		}
	}
	want("loopback alone is up", lan, "")
	for _, name := range []string{"first", "second"} {
		for _, end := range []string{"end-" + name, name} {
			must(t, m.IP("link set "+end+" up"))
		}
	}
	want("no route", only, "10.78.1.1")
	must(t, m.IP("route add default dev second"))
	want("a route by the second", lan, "10.78.2.1")
	want("a route by another", only, "10.78.1.1")
	want("a route", mdns.Options{}, "")
}
