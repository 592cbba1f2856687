package mdns

import (
	"net"
	"slices"
	"sort"
	"strings"

	hashimdns "github.com/hashicorp/mdns"
	"github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

// dnssdType is the service type of all nodes in DNS-SD (RFC 6763 section 7); each service is a subtype.
const dnssdType = "_micro._tcp"

// dnssdDomain is where nodes stand in DNS-SD. A private domain stays private.
func (r *Registry) dnssdDomain() string {
	if r.opts.Domain == DefaultDomain {
		return "local."
	}
	return r.domain
}

// dnssd gives hashicorp/mdns's records of a node, by which avahi-browse and dns-sd see it. They are sent by this
// package's endpoint, and not by hashicorp/mdns's own server: that one binds port 5353 for all interfaces, and so gets
// and answers what other machines ask of any group that any program of this machine has joined (ip(7),
// IP_MULTICAST_ALL); it is not told who asks, and answers an asker of port 5353 by unicast, which reaches one of the
// programs that share the port. It is nil where a name does not fit.
func (r *Registry) dnssd(rec *wire.Record) *hashimdns.MDNSService {
	n := rec.Node
	if r.opts.NoDNSSD || len(n.ID) > 63 || len(n.Service) > 63 {
		return nil
	}
	domain := r.dnssdDomain()
	ip := net.IP(rec.Addr.Addr().AsSlice())
	host := wire.Host(rec.Addr.Addr()) + "." + domain
	s, err := hashimdns.NewMDNSService(escape(n.ID), dnssdType, domain, host, int(rec.Addr.Port()), []net.IP{ip}, attributes(rec))
	if err != nil {
		r.log.Debug("node left out of DNS-SD", "node", n.ID, "error", err)
		return nil
	}
	return s
}

// attributes gives the node as key=value strings (RFC 6763 section 6), those that fit.
func attributes(rec *wire.Record) []string {
	const most = 400 // bytes in all, as section 6.2 advises
	n := rec.Node
	out := []string{"txtvers=1", "service=" + n.Service}
	if plain(n.Version) {
		out = append(out, "version="+n.Version)
	}
	size := len(n.Service) + len(n.Version) + 30
	keys := make([]string, 0, len(n.Metadata))
	for k := range n.Metadata {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		pair := k + "=" + n.Metadata[k]
		if plain(pair) && strings.IndexByte(pair, '=') == len(k) && size+len(pair) < most && len(pair) < 256 {
			out = append(out, pair)
			size += len(pair) + 1
		}
	}
	return out
}

// plain reports whether a string goes into a record as it is, without the escapes of package dns.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '\\' || r == '"' })
}

// escape writes a name as one DNS label.
func escape(name string) string { return strings.ReplaceAll(name, ".", `\.`) }

// dnssdRecords gives a node's answer to a question of DNS-SD: for the service type, a subtype, the instance, the host or
// the enumeration of types.
func dnssdRecords(o *own, q dns.Question, known []string) []dns.RR {
	s := o.dnssd
	base := dnssdType + "." + s.Domain
	instance := s.Instance + "." + base
	ask := func(name string) []dns.RR {
		return s.Records(dns.Question{Name: name, Qtype: q.Qtype, Qclass: q.Qclass})
	}
	switch name := q.Name; {
	case strings.EqualFold(name, base):
		if slices.Contains(known, instance) {
			return nil
		}
		return ask(base)
	case strings.EqualFold(name, instance):
		return ask(instance)
	case strings.EqualFold(name, escape(o.rec.Node.Service)+"._sub."+base) && asksPointer(q):
		if slices.Contains(known, instance) {
			return nil
		}
		rrs := s.Records(dns.Question{Name: base, Qtype: dns.TypePTR, Qclass: q.Qclass})
		if len(rrs) > 0 {
			rrs[0].Header().Name = q.Name
		}
		return rrs
	}
	return nil
}

// host answers for a host's address, once for all nodes there. It is called with the lock held.
func (r *Registry) host(q dns.Question) [][]dns.RR {
	for _, o := range r.table.nodes {
		if o.dnssd == nil || !strings.EqualFold(q.Name, o.dnssd.HostName) {
			continue
		}
		if rrs := o.dnssd.Records(dns.Question{Name: o.dnssd.HostName, Qtype: q.Qtype, Qclass: q.Qclass}); len(rrs) > 0 {
			return [][]dns.RR{rrs}
		}
	}
	return nil
}

// types answers DNS-SD's enumeration of service types (RFC 6763 section 9), once for all nodes. It is called with the
// lock held.
func (r *Registry) types(q dns.Question, known []string) [][]dns.RR {
	for _, o := range r.table.nodes {
		if o.dnssd == nil {
			continue
		}
		domain := r.dnssdDomain()
		rrs := o.dnssd.Records(dns.Question{Name: wire.TypesName(domain), Qtype: q.Qtype, Qclass: q.Qclass})
		if len(rrs) == 0 || slices.Contains(known, dnssdType+"."+domain) {
			return nil
		}
		return [][]dns.RR{rrs}
	}
	return nil
}
