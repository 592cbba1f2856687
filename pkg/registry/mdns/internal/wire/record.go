// Package wire is the record format of the mDNS registry: a node as DNS records and back, in the form that go-micro's
// mDNS registry writes and reads. It opens no socket and keeps no clock.
//
// A node stands under four names of a domain, "micro." by default:
//
//	<service>.micro.        PTR  <id>.<service>.micro.
//	<id>.<service>.micro.   SRV  port and host, then the host's A or AAAA
//	<id>.<service>.micro.   TXT  zlib, in hexadecimal, of a JSON object, in strings of 255 bytes
//	_services.micro.        PTR  <service>._services.micro., for listing names only
//
// One more name is this project's own: _nodes.micro. asks for every node, whatever its service. go-micro does not know
// the name and stays silent.
package wire

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Sizes of what is written. With these a packet stays below the MTU of an Ethernet (RFC 6762 section 17), unless the
// metadata alone is larger.
const (
	// MaxText is the size of a TXT record's data above which the node's endpoints are left out.
	MaxText = 1000
	// MaxPacket is the largest packet that is sent, and the largest that is read unasked (RFC 6762 section 17).
	MaxPacket = 9000

	maxBareText = 8000 // what a TXT record may take without endpoints, so that the packet stays below MaxPacket
	maxLabel    = 63   // RFC 1035 section 2.3.4
	maxName     = 255  // RFC 1035 section 2.3.4, with length bytes and the root
	textString  = 255  // RFC 1035 section 3.3.14
	listingPort = 9999 // go-micro's readers take an entry without a port for incomplete
)

// Record is one node in its DNS form. It is not changed after NewRecord.
type Record struct {
	Node     registry.Node // as registered, endpoints included
	Instance string        // "greeter-1.greeter.micro."
	Service  string        // "greeter.micro."
	Addr     netip.AddrPort

	listing string // "greeter._services.micro."
	target  string // the host that SRV names
	text    []string
}

// text is the JSON object inside a TXT record. The names are go-micro's.
type text struct {
	Metadata  map[string]string
	Service   string
	Version   string
	Endpoints []registry.Endpoint
}

// NewRecord encodes n, which is valid by registry.Validate, for a domain that ends with a dot. The error wraps
// registry.ErrInvalid: the address is not an IP address with a port, a name does not fit into DNS, or the metadata is
// too large for a packet.
func NewRecord(n registry.Node, domain string) (*Record, error) {
	addr, err := Address(n.Address)
	if err != nil {
		return nil, err
	}
	r := &Record{
		Node: n.Clone(), Addr: addr,
		Service: n.Service + "." + domain, Instance: n.ID + "." + n.Service + "." + domain,
		listing: n.Service + "._services." + domain, target: Host(addr.Addr()) + "." + domain,
	}
	if err := r.checkNames(); err != nil {
		return nil, err
	}
	if r.text, err = encode(n); err != nil {
		return nil, err
	}
	return r, nil
}

// Address reads host:port, where host is an IP address that others can dial. The error wraps registry.ErrInvalid.
func Address(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return a, fmt.Errorf("%w: address %q: mDNS announces an IP address and a port, as 192.168.1.5:8080", registry.ErrInvalid, s)
	case a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Addr().Zone() != "":
		return a, fmt.Errorf("%w: address %q cannot be dialled by others: announce the address of one interface", registry.ErrInvalid, s)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// Host gives the first label of the host name under which an address is announced. It is not the machine's own name,
// which belongs to the machine's own mDNS responder.
func Host(a netip.Addr) string {
	return "micro-" + strings.Trim(strings.NewReplacer(".", "-", ":", "-").Replace(a.String()), "-")
}

func (r *Record) checkNames() error {
	for _, part := range []struct{ what, name string }{{"service name", r.Node.Service}, {"node id", r.Node.ID}} {
		if n := longest(part.name); n > maxLabel {
			return fmt.Errorf("%w: %s %q has %d bytes between dots, DNS takes %d: shorten it, or use another registry than mdns",
				registry.ErrInvalid, part.what, part.name, n, maxLabel)
		}
	}
	for _, name := range []string{r.Instance, r.listing} {
		if len(name)+1 > maxName {
			return fmt.Errorf("%w: node id and service make a DNS name of %d bytes, DNS takes %d: shorten one, or use another registry than mdns",
				registry.ErrInvalid, len(name)+1, maxName)
		}
	}
	return nil
}

// longest gives the length of a name's longest label.
func longest(name string) (n int) {
	for label := range strings.SplitSeq(name, ".") {
		n = max(n, len(label))
	}
	return n
}

// Askable reports whether there can be nodes of a service: its name is valid and fits into DNS.
func Askable(service, domain string) bool {
	return registry.ValidName(service) && longest(service) <= maxLabel && len(ServiceName(service, domain)) < maxName
}

// encode gives the strings of n's TXT record.
func encode(n registry.Node) ([]string, error) {
	t := text{Metadata: n.Metadata, Service: n.Service, Version: n.Version, Endpoints: n.Endpoints}
	if t.Metadata == nil {
		t.Metadata = map[string]string{} // go-micro writes into the map that it reads
	}
	out, size, err := t.strings()
	if err == nil && size > MaxText && t.Endpoints != nil {
		t.Endpoints = nil
		out, size, err = t.strings()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: node %q: %w", registry.ErrInvalid, n.ID, err)
	}
	if size > maxBareText {
		return nil, fmt.Errorf("%w: node %q: metadata takes %d bytes of a TXT record, limit %d", registry.ErrInvalid, n.ID, size, maxBareText)
	}
	return out, nil
}

// strings gives the TXT strings, and their size on the wire with the length bytes.
func (t text) strings() (out []string, size int, err error) {
	plain, err := json.Marshal(t)
	if err != nil {
		return nil, 0, err
	}
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	if _, err = w.Write(plain); err == nil {
		err = w.Close()
	}
	s := hex.EncodeToString(packed.Bytes())
	for ; len(s) > textString; s = s[textString:] {
		out = append(out, s[:textString])
	}
	out = append(out, s)
	return out, len(out) + 2*packed.Len(), err
}

// Records gives the node's records in the order that go-micro's readers need: SRV, address, TXT. Without ttl, in
// seconds, it is the goodbye of RFC 6762 section 10.1.
func (r *Record) Records(ttl uint32) []dns.RR {
	return []dns.RR{
		&dns.SRV{Hdr: header(r.Instance, dns.TypeSRV, ttl), Priority: 10, Weight: 1, Port: r.Addr.Port(), Target: r.target},
		address(r.target, r.Addr.Addr(), ttl),
		&dns.TXT{Hdr: header(r.Instance, dns.TypeTXT, ttl), Txt: r.text},
	}
}

// Pointer gives the PTR record from name to the node, and the node's records.
func (r *Record) Pointer(name string, ttl uint32) []dns.RR {
	return append([]dns.RR{&dns.PTR{Hdr: header(name, dns.TypePTR, ttl), Ptr: r.Instance}}, r.Records(ttl)...)
}

// Listing gives the records that answer _services: the service's name, and a port and an address that only make the
// entry complete.
func (r *Record) Listing(name string, ttl uint32) []dns.RR {
	return []dns.RR{
		&dns.PTR{Hdr: header(name, dns.TypePTR, ttl), Ptr: r.listing},
		&dns.SRV{Hdr: header(r.listing, dns.TypeSRV, ttl), Priority: 10, Weight: 1, Port: listingPort, Target: r.target},
		address(r.target, netip.IPv4Unspecified(), ttl),
		&dns.TXT{Hdr: header(r.listing, dns.TypeTXT, ttl), Txt: []string{""}},
	}
}

// Type gives the PTR record of DNS-SD's enumeration of service types (RFC 6763 section 9).
func (r *Record) Type(name string, ttl uint32) []dns.RR {
	return []dns.RR{&dns.PTR{Hdr: header(name, dns.TypePTR, ttl), Ptr: r.Service}}
}

// Response packs a response. To an asker of a port other than 5353 it repeats the query's id and questions (RFC 6762
// section 6.7): go-micro's clients take no other. A multicast response has neither (section 6).
func Response(id uint16, questions []dns.Question, answers []dns.RR) ([]byte, error) {
	m := dns.Msg{MsgHdr: dns.MsgHdr{Id: id, Response: true, Authoritative: true}, Compress: true, Question: questions, Answer: answers}
	return m.Pack()
}

// Query packs a question for the PTR records of names.
func Query(id uint16, names ...string) ([]byte, error) {
	m := dns.Msg{MsgHdr: dns.MsgHdr{Id: id}}
	for _, name := range names {
		m.Question = append(m.Question, dns.Question{Name: name, Qtype: dns.TypePTR, Qclass: dns.ClassINET})
	}
	return m.Pack()
}

// ServiceName, ServicesName and NodesName are the names to ask for: one service's nodes, all services' names as
// go-micro lists them, and all nodes.
func ServiceName(service, domain string) string { return service + "." + domain }

// ServicesName is described with ServiceName.
func ServicesName(domain string) string { return "_services." + domain }

// NodesName is described with ServiceName.
func NodesName(domain string) string { return "_nodes." + domain }

// TypesName is the name of DNS-SD's enumeration of service types in the domain (RFC 6763 section 9).
func TypesName(domain string) string { return "_services._dns-sd._udp." + domain }

func header(name string, kind uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

func address(name string, a netip.Addr, ttl uint32) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: header(name, dns.TypeA, ttl), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA, ttl), AAAA: a.AsSlice()}
}
