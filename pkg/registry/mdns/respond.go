package mdns

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/link"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

// packed is how large an answer of several nodes may grow: below the MTU of most links.
const packed = 1200

// answers gives the records that answer a query, a packet each. go-micro's readers take one node of a packet, so a
// packet has one; only _nodes, which they do not ask for, is answered with several.
func (r *Registry) answers(m *wire.Message) (out [][]dns.RR) {
	r.mu.Lock()
	defer r.mu.Unlock()
	nodes, listing := wire.NodesName(r.domain), wire.ServicesName(r.domain)
	all := false
	for _, q := range m.Questions {
		switch name := q.Name; {
		case strings.EqualFold(name, nodes):
			if !all {
				out = append(out, r.everything(q)...)
			}
			all = true
		case strings.EqualFold(name, listing):
			if !all { // who asks for the nodes too is one of ours, and needs no names
				out = append(out, r.perService((*wire.Record).Listing, q)...)
			}
		case strings.EqualFold(name, wire.TypesName(r.domain)):
			out = append(out, r.perService((*wire.Record).Type, q)...)
			out = append(out, r.types(q, m.Known)...)
		case strings.EqualFold(name, wire.TypesName(r.dnssdDomain())):
			out = append(out, r.types(q, m.Known)...)
		case q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA:
			out = append(out, r.host(q)...)
		default:
			out = append(out, r.matching(q, m.Known)...)
		}
	}
	return out
}

// asksPointer reports whether a question wants PTR records of the Internet class; the class's top bit asks for a unicast
// answer (RFC 6762 section 5.4).
func asksPointer(q dns.Question) bool { return q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY }

// The rest is called with the lock held.

// everything gives all nodes, several to a packet.
func (r *Registry) everything(q dns.Question) (out [][]dns.RR) {
	if !asksPointer(q) {
		return nil
	}
	var group []dns.RR
	size := 0
	for _, o := range r.table.nodes {
		rrs := o.rec.Pointer(q.Name, seconds(r.ttl(o)))
		length := 0
		for _, rr := range rrs {
			length += dns.Len(rr)
		}
		if len(group) > 0 && size+length > packed {
			out, group, size = append(out, group), nil, 0
		}
		group, size = append(group, rrs...), size+length
	}
	if len(group) > 0 {
		out = append(out, group)
	}
	return out
}

// perService gives records of each service once.
func (r *Registry) perService(make func(*wire.Record, string, uint32) []dns.RR, q dns.Question) (out [][]dns.RR) {
	if !asksPointer(q) {
		return nil
	}
	seen := map[string]bool{}
	for _, o := range r.table.nodes {
		if !seen[o.rec.Service] {
			seen[o.rec.Service] = true
			out = append(out, make(o.rec, q.Name, seconds(r.ttl(o))))
		}
	}
	return out
}

// matching gives the nodes that a service's or an instance's name asks for, in go-micro's form or in DNS-SD's, but not
// those that the asker says it knows (RFC 6762 section 7.1).
func (r *Registry) matching(q dns.Question, known []string) (out [][]dns.RR) {
	for _, o := range r.table.nodes {
		switch {
		case strings.EqualFold(q.Name, o.rec.Service) && asksPointer(q):
			if !slices.Contains(known, o.rec.Instance) {
				out = append(out, o.rec.Pointer(q.Name, seconds(r.ttl(o))))
			}
		case strings.EqualFold(q.Name, o.rec.Instance) && (asksPointer(q) || q.Qtype == dns.TypeSRV || q.Qtype == dns.TypeTXT):
			out = append(out, o.rec.Records(seconds(r.ttl(o))))
		case o.dnssd != nil:
			if rrs := dnssdRecords(o, q, known); len(rrs) > 0 {
				out = append(out, rrs)
			}
		}
	}
	return out
}

// respond answers a query: to an asker of port 5353 by multicast, to others by unicast with the query's id and
// questions (RFC 6762 sections 6 and 6.7). This machine is answered inside: in Host scope nothing leaves it.
func (e *endpoint) respond(p link.Packet, from source, m *wire.Message) {
	answers := e.r.answers(m)
	if len(answers) == 0 {
		return
	}
	pause := pauser{stop: e.stopped}
	for _, rrs := range answers {
		if err := e.reply(p, from, m, rrs); err != nil {
			e.r.log.Debug("answer not sent", "to", p.From, "error", err)
		}
		pause.sent()
	}
}

func (e *endpoint) reply(p link.Packet, from source, m *wire.Message, rrs []dns.RR) error {
	if p.From.Port() != link.Port {
		packet, err := wire.Response(m.ID, m.Questions, rrs)
		if err != nil {
			return err
		}
		return e.conn.Send(packet, p.From)
	}
	packet, err := wire.Response(0, nil, rrs)
	if err != nil {
		return err
	}
	i, ok := e.on(p.Interface)
	switch {
	case !ok: // the system does not tell where it came from
		return e.r.multicast(e.conn, e.out(), packet)
	case from.local() && !i.Loopback(): // the link's other machines have not asked
		return e.conn.MulticastInside(packet, &i)
	}
	return e.conn.Multicast(packet, &i)
}

// maxRate is how many queries of another host are answered in a second: a listing of go-micro asks for each service by
// name. Answers are larger than questions, and the asker's address is not proved.
const maxRate = 50

// rates counts queries by source. One goroutine uses it.
type rates struct {
	second int64
	count  map[source]int
}

func (r *rates) allow(from source, now time.Time) bool {
	if s := now.Unix(); s != r.second || r.count == nil {
		r.second, r.count = s, map[source]int{}
	}
	r.count[from]++
	return r.count[from] <= maxRate
}
