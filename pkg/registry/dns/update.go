package dns

import (
	"context"
	"net/netip"
	"sync"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
)

// apex is the zone that updates are of: the one that Options.Zone is in.
type apex struct {
	mu   sync.Mutex
	name string
}

// find asks for it once. Who does not say is taken at Options.Zone's word.
func (a *apex) find(ctx context.Context, r *Registry) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.name != "" {
		return a.name, nil
	}
	answers, err := r.ask(ctx, query(r.zone, wire.TypeSOA))
	if err != nil {
		return "", err
	}
	name := r.zone
	for _, rr := range append(answers[0].Answer, answers[0].Ns...) {
		if soa, ok := rr.(*wire.SOA); ok && wire.IsSubDomain(soa.Hdr.Name, r.zone) {
			name = wire.CanonicalName(soa.Hdr.Name)
			break
		}
	}
	a.name = name
	return name, nil
}

// change makes an update that is carried out only where a node's TXT records are what was seen; nil: none.
func (r *Registry) change(ctx context.Context, instance string, seen *wire.TXT) (*wire.Msg, error) {
	zone, err := r.apex.find(ctx, r)
	if err != nil {
		return nil, err
	}
	m := new(wire.Msg)
	m.SetUpdate(zone)
	if seen == nil {
		m.RRsetNotUsed([]wire.RR{&wire.ANY{Hdr: wire.RR_Header{Name: instance, Rrtype: wire.TypeTXT}}})
	} else {
		m.Used([]wire.RR{wire.Copy(seen)})
	}
	return m, nil
}

// put writes a node's records in the place of those that were seen. before is the node that they were of, and is not looked at where there
// were none.
func (r *Registry) put(ctx context.Context, n registry.Node, to *wire.TXT, seen *wire.TXT, before registry.Node) error {
	m, err := r.change(ctx, to.Hdr.Name, seen)
	if err != nil {
		return err
	}
	if seen != nil {
		r.removeOthers(m, before, n)
	}
	m.RemoveRRset([]wire.RR{to})
	m.Insert([]wire.RR{wire.Copy(to)})
	srv := &wire.SRV{Hdr: like(to, to.Hdr.Name, wire.TypeSRV)}
	m.RemoveRRset([]wire.RR{srv})
	name, port, ip, ok := r.target(n)
	if ok {
		srv.Target, srv.Port = name, port
		m.Insert([]wire.RR{srv})
	}
	if ok && ip.IsValid() {
		m.Insert([]wire.RR{address(to, name, ip)})
	}
	m.Insert([]wire.RR{
		&wire.PTR{Hdr: like(to, r.pointer(n.Service), wire.TypePTR), Ptr: to.Hdr.Name},
		&wire.PTR{Hdr: like(to, r.services(), wire.TypePTR), Ptr: r.pointer(n.Service)},
	})
	return r.update(ctx, m)
}

// removeOthers takes away what a node had at other names than it will have.
func (r *Registry) removeOthers(m *wire.Msg, before, n registry.Node) {
	if before.Service != n.Service {
		m.Remove([]wire.RR{&wire.PTR{Hdr: wire.RR_Header{Name: r.pointer(before.Service), Rrtype: wire.TypePTR}, Ptr: r.instance(n.ID)}})
	}
	was, _, wasIP, ok := r.target(before)
	is, _, _, _ := r.target(n)
	if ok && wasIP.IsValid() && was != is {
		m.RemoveName([]wire.RR{&wire.ANY{Hdr: wire.RR_Header{Name: was}}})
	}
}

// remove takes a node's records away, if they are still those that were seen, and its service where it was the last of it.
func (r *Registry) remove(ctx context.Context, n registry.Node, seen *wire.TXT) error {
	m, err := r.change(ctx, seen.Hdr.Name, seen)
	if err != nil {
		return err
	}
	m.RemoveName([]wire.RR{seen})
	m.Remove([]wire.RR{&wire.PTR{Hdr: wire.RR_Header{Name: r.pointer(n.Service), Rrtype: wire.TypePTR}, Ptr: seen.Hdr.Name}})
	if name, _, ip, ok := r.target(n); ok && ip.IsValid() {
		m.RemoveName([]wire.RR{&wire.ANY{Hdr: wire.RR_Header{Name: name}}})
	}
	if err := r.update(ctx, m); err != nil {
		return err
	}
	r.tidy(ctx, r.pointer(n.Service))
	return nil
}

// removeStray takes away a PTR record that leads to nothing.
func (r *Registry) removeStray(ctx context.Context, p pair) error {
	m, err := r.change(ctx, p.instance, nil)
	if err != nil {
		return err
	}
	m.Remove([]wire.RR{&wire.PTR{Hdr: wire.RR_Header{Name: p.service, Rrtype: wire.TypePTR}, Ptr: p.instance}})
	if err := r.update(ctx, m); err != nil {
		return err
	}
	r.tidy(ctx, p.service)
	return nil
}

// tidy takes a service that has no more nodes off the list of services. Where it fails it stays there, and is of no node.
func (r *Registry) tidy(ctx context.Context, pointer string) {
	zone, err := r.apex.find(ctx, r)
	if err != nil {
		return
	}
	m := new(wire.Msg)
	m.SetUpdate(zone)
	m.RRsetNotUsed([]wire.RR{&wire.ANY{Hdr: wire.RR_Header{Name: pointer, Rrtype: wire.TypePTR}}})
	m.Remove([]wire.RR{&wire.PTR{Hdr: wire.RR_Header{Name: r.services(), Rrtype: wire.TypePTR}, Ptr: pointer}})
	_ = r.update(ctx, m)
}

// like gives a header for a record that lives as long as another.
func like(t *wire.TXT, name string, kind uint16) wire.RR_Header {
	return wire.RR_Header{Name: name, Rrtype: kind, Class: wire.ClassINET, Ttl: t.Hdr.Ttl}
}

func address(t *wire.TXT, name string, ip netip.Addr) wire.RR {
	if ip.Is4() {
		return &wire.A{Hdr: like(t, name, wire.TypeA), A: ip.AsSlice()}
	}
	return &wire.AAAA{Hdr: like(t, name, wire.TypeAAAA), AAAA: ip.AsSlice()}
}

// pruneAfter is how long after its time by the clock a record is removed that nobody watched: clocks that a nameserver takes the signatures
// of are within fudge of its own.
const pruneAfter = 2 * fudge * time.Second

// Prune removes the records of nodes that are over, of all services: those of which this Registry saw no renewal in their ttl, and those
// whose time was over ten minutes ago by this machine's clock. It gives how many. Registrars remove what they meet of the services of
// their own nodes by themselves; this is for services that nobody runs any more. Records that are renewed meanwhile stay.
func (r *Registry) Prune(ctx context.Context) (int, error) {
	if err := r.usable(ctx); err != nil {
		return 0, err
	}
	if err := r.mayUpdate(); err != nil {
		return 0, err
	}
	f, err := r.look(ctx, "")
	if err != nil {
		return 0, err
	}
	for _, t := range f.doubtful {
		if time.Since(t.until) > pruneAfter {
			f.dead = append(f.dead, t)
		}
	}
	return r.clear(ctx, f)
}

// clear removes what a look found to be over.
func (r *Registry) clear(ctx context.Context, f *found) (removed int, err error) {
	for _, t := range f.dead {
		if err = r.remove(ctx, t.node, t.rr); err == nil {
			removed++
			r.o.Logger.Info("removed a node whose owner does not renew it", "dns", r.host, "node", t.node.ID, "service", t.node.Service)
		}
		if err != nil && !isPrerequisite(err) { // else somebody else was faster, or it was renewed
			return removed, err
		}
	}
	for _, p := range f.stray {
		if err = r.removeStray(ctx, p); err != nil && !isPrerequisite(err) {
			return removed, err
		}
	}
	return removed, nil
}
