package wire

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Limits of what is read.
const (
	maxQuestions = 16
	maxRecords   = 1024
	maxInflated  = registry.MaxRecord // bytes that one TXT record may inflate to
	maxWork      = 4 * maxInflated    // bytes that all TXT records of one packet may inflate to
)

// Errors of Parse.
var (
	errNotMDNS = errors.New("not a query or response of mDNS")
	errTooMany = errors.New("too many questions or records")
	errNoText  = errors.New("TXT is not a node's record")
	errWork    = errors.New("TXT records inflate beyond the packet's limit")
)

// Message is what one packet says.
type Message struct {
	ID       uint16
	Response bool

	// Of a query: what is asked, and the instances of which the asker says that it knows them.
	Questions []dns.Question
	Known     []string

	// Of a response: the nodes that it announces or takes back, and the services' names in answer to _services.
	Found    []Found
	Services []string
}

// Found is one node in a response.
type Found struct {
	Instance string        // the DNS name: a node's key
	Gone     bool          // a goodbye: Node and Addr may be empty
	Node     registry.Node // valid by registry.Validate
	Addr     netip.AddrPort
	TTL      time.Duration
}

// Parser reads packets for one domain. It keeps its buffers between packets: one goroutine uses it at a time. What it
// gives shares nothing with the packet.
type Parser struct {
	domain string // "micro."
	packed []byte
	plain  bytes.Buffer
	zlib   io.ReadCloser
	work   int // what the packet's TXT records may still inflate to
}

// NewParser makes a parser for a domain that ends with a dot.
func NewParser(domain string) *Parser { return &Parser{domain: domain} }

// instance is a node's records while a packet is read.
type instance struct {
	name   string
	target string
	port   uint16
	addr   netip.Addr // IPv4 preferred
	text   []string
	ttl    uint32
	srv    bool
	gone   bool
}

// Parse reads one packet. Nodes that are incomplete or not valid are left out; an error is of the whole packet.
func (p *Parser) Parse(packet []byte) (*Message, error) {
	var m dns.Msg
	if err := m.Unpack(packet); err != nil {
		return nil, err
	}
	switch {
	case m.Opcode != dns.OpcodeQuery || m.Rcode != dns.RcodeSuccess: // RFC 6762 sections 18.3 and 18.11
		return nil, errNotMDNS
	case len(m.Question) > maxQuestions || len(m.Answer)+len(m.Extra) > maxRecords:
		return nil, errTooMany
	}
	out := &Message{ID: m.Id, Response: m.Response}
	if !m.Response {
		out.Questions = m.Question
		for _, rr := range m.Answer {
			if ptr, ok := rr.(*dns.PTR); ok && ptr.Hdr.Ttl > 0 {
				out.Known = append(out.Known, ptr.Ptr)
			}
		}
		return out, nil
	}
	p.work = maxWork
	p.response(out, append(m.Answer, m.Extra...))
	return out, nil
}

func (p *Parser) response(out *Message, records []dns.RR) {
	list := ServicesName(p.domain)
	instances := p.gather(records)
	for _, rr := range records {
		if ptr, ok := rr.(*dns.PTR); ok && ptr.Hdr.Ttl > 0 && strings.EqualFold(ptr.Hdr.Name, list) {
			if name, ok := cutSuffix(ptr.Ptr, "."+list); ok && registry.ValidName(name) {
				out.Services = append(out.Services, name)
			}
		}
	}
	for _, in := range instances {
		if _, listing := cutSuffix(in.name, "."+list); listing {
			continue
		}
		if in.gone {
			out.Found = append(out.Found, Found{Instance: in.name, Gone: true})
			continue
		}
		if f, err := p.found(in); err == nil {
			out.Found = append(out.Found, f)
		}
	}
}

// gather puts the records of each instance together. An address belongs to the SRV record before it that names its
// host: go-micro's nodes of one machine share a host name, and their readers go by the order too.
func (p *Parser) gather(records []dns.RR) []*instance {
	var order []*instance
	byName := map[string]*instance{}
	of := func(h *dns.RR_Header) *instance {
		in := byName[h.Name]
		if in == nil {
			in = &instance{name: h.Name, ttl: h.Ttl}
			byName[h.Name] = in
			order = append(order, in)
		}
		in.ttl = min(in.ttl, h.Ttl)
		in.gone = in.gone || h.Ttl == 0
		return in
	}
	var last *instance
	hosts := map[string]netip.Addr{}
	for _, rr := range records {
		h := rr.Header()
		switch rr := rr.(type) {
		case *dns.SRV:
			if _, ok := cutSuffix(h.Name, "."+p.domain); ok {
				last = of(h)
				last.srv, last.target, last.port = true, rr.Target, rr.Port
			}
		case *dns.TXT:
			if _, ok := cutSuffix(h.Name, "."+p.domain); ok {
				of(h).text = rr.Txt
			}
		case *dns.A:
			addHost(hosts, last, h.Name, rr.A)
		case *dns.AAAA:
			addHost(hosts, last, h.Name, rr.AAAA)
		}
	}
	for _, in := range order {
		if in.srv && !in.addr.IsValid() {
			in.addr = hosts[in.target]
		}
	}
	return order
}

// addHost notes an address of a host, for the instance before it and for those that find none of their own.
func addHost(hosts map[string]netip.Addr, last *instance, host string, ip []byte) {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	if !ok || a.IsUnspecified() {
		return
	}
	if old := hosts[host]; !old.Is4() {
		hosts[host] = a
	}
	if last != nil && last.target == host && !last.addr.Is4() {
		last.addr = a
	}
}

// found makes a node of an instance.
func (p *Parser) found(in *instance) (Found, error) {
	if !in.srv || in.port == 0 || !in.addr.IsValid() {
		return Found{}, errNoText
	}
	t, err := p.decode(in.text)
	if err != nil {
		return Found{}, err
	}
	id, ok := cutSuffix(in.name, "."+t.Service+"."+p.domain)
	if !ok {
		return Found{}, fmt.Errorf("%w: it is of another service", errNoText)
	}
	addr := netip.AddrPortFrom(in.addr, in.port)
	n := registry.Node{ID: id, Service: t.Service, Version: t.Version, Address: addr.String(), Metadata: t.Metadata, Endpoints: t.Endpoints}
	if len(n.Metadata) == 0 {
		n.Metadata = nil
	}
	if err := registry.Validate(n); err != nil {
		return Found{}, err
	}
	return Found{Instance: in.name, Node: n, Addr: addr, TTL: time.Duration(in.ttl) * time.Second}, nil
}

// decode reads a TXT record. What passes maxInflated is cut off: a node of go-micro with hundreds of endpoints keeps
// what stands before the cut, if its name is there.
func (p *Parser) decode(strs []string) (text, error) {
	var t text
	p.packed = p.packed[:0]
	for _, s := range strs {
		p.packed = append(p.packed, s...)
	}
	n, err := hex.Decode(p.packed, p.packed)
	if err != nil || n == 0 {
		return t, errNoText
	}
	if err := p.inflate(p.packed[:n]); err != nil {
		return t, err
	}
	d := json.NewDecoder(&p.plain)
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return t, errNoText
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			break
		}
		if err := t.field(d, key); err != nil {
			break
		}
	}
	if t.Service == "" {
		return t, errNoText
	}
	return t, nil
}

// field reads the value of one key into t. A value that is cut off leaves its field empty.
func (t *text) field(d *json.Decoder, key json.Token) (err error) {
	switch key {
	case "Service":
		err = d.Decode(&t.Service)
	case "Version":
		err = d.Decode(&t.Version)
	case "Metadata":
		if err = d.Decode(&t.Metadata); err != nil {
			t.Metadata = nil
		}
	case "Endpoints":
		if err = d.Decode(&t.Endpoints); err != nil {
			t.Endpoints = nil
		}
	default:
		var skip json.RawMessage
		err = d.Decode(&skip)
	}
	return err
}

// inflate fills p.plain, up to maxInflated bytes.
func (p *Parser) inflate(packed []byte) (err error) {
	if p.work <= 0 {
		return errWork
	}
	in := bytes.NewReader(packed)
	if p.zlib == nil {
		p.zlib, err = zlib.NewReader(in)
	} else {
		err = p.zlib.(zlib.Resetter).Reset(in, nil)
	}
	if err != nil {
		p.zlib = nil
		return err
	}
	p.plain.Reset()
	n, err := io.Copy(&p.plain, io.LimitReader(p.zlib, maxInflated))
	p.work -= int(n)
	return err
}

// cutSuffix is strings.CutSuffix by DNS's rule, which knows no case (RFC 1035 section 2.3.3).
func cutSuffix(name, suffix string) (string, bool) {
	i := len(name) - len(suffix)
	if i <= 0 || !strings.EqualFold(name[i:], suffix) {
		return name, false
	}
	return name[:i], true
}
