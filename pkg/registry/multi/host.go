package multi

import "github.com/cb02dfca/micro/pkg/registry"

var _ registry.Hoster = (*Registry)(nil)

// Host gives the address that the first of the members has for this machine, as registry.Hoster says. Members that are
// not open have none.
func (r *Registry) Host() (host string, ok bool) {
	for _, m := range r.members {
		if h, is := m.open().(registry.Hoster); is {
			if host, ok := h.Host(); ok {
				return host, true
			}
		}
	}
	return "", false
}
