package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
)

const (
	maxNodes  = 20000 // of one look
	maxChain  = 8     // CNAME records before an SRV record
	maxPlain  = 1000  // SRV records of a name
	leastPoll = time.Second
)

// Metadata of nodes that stand in DNS as an SRV record alone.
const (
	MetaTarget = "srv-target" // the host's name
	MetaWeight = "srv-weight" // of 65535, among those of the same priority
)

// found is what a look has found.
type found struct {
	nodes    []registry.Node // sorted, one for each id; never nil
	dead     []*txt          // records of ours that are over, as was watched
	doubtful []*txt          // records of ours that are over by the clock alone
	stray    []pair          // PTR records that lead nowhere
	again    time.Duration   // when there may be something else
}

// pair is a service and an instance.
type pair struct{ service, instance string }

// look finds the nodes of a service, or of all for the empty name.
func (r *Registry) look(ctx context.Context, service string) (*found, error) {
	ctx, stop := r.within(ctx)
	defer stop()
	f, err := r.lookUp(ctx, service)
	if err != nil {
		if r.life.Err() != nil {
			err = registry.ErrClosed
		}
		return nil, err
	}
	return f, nil
}

func (r *Registry) lookUp(ctx context.Context, service string) (*found, error) {
	f := &found{nodes: []registry.Node{}, again: r.o.Poll}
	pointers, err := r.pointersOf(ctx, f, service)
	if err != nil {
		return nil, err
	}
	instances, err := r.instancesOf(ctx, f, pointers)
	if err != nil {
		return nil, err
	}
	if len(instances) > maxNodes {
		return nil, r.unavailable(fmt.Errorf("it has %d nodes, limit %d", len(instances), maxNodes))
	}
	if err := r.readAll(ctx, f, service, instances); err != nil {
		return nil, err
	}
	names := []string{service}
	if service == "" {
		names = r.o.Services
	}
	for _, name := range names {
		if slices.ContainsFunc(f.nodes, func(n registry.Node) bool { return n.Service == name }) {
			continue
		}
		if err := r.plain(ctx, f, name); err != nil {
			return nil, err
		}
	}
	registry.Sort(f.nodes)
	f.nodes = slices.CompactFunc(f.nodes, func(a, b registry.Node) bool { return a.Service == b.Service && a.ID == b.ID })
	return f, nil
}

// pointersOf gives the names at which services' PTR records stand.
func (r *Registry) pointersOf(ctx context.Context, f *found, service string) ([]string, error) {
	if service != "" {
		return []string{r.pointer(service)}, nil
	}
	answers, err := r.ask(ctx, query(r.services(), wire.TypePTR))
	if err != nil {
		return nil, err
	}
	return f.targets(answers[0], "."+subName+r.zone), nil
}

// instancesOf gives where the PTR records lead, once each.
func (r *Registry) instancesOf(ctx context.Context, f *found, pointers []string) ([]pair, error) {
	questions := make([]*wire.Msg, len(pointers))
	for i, p := range pointers {
		questions[i] = query(p, wire.TypePTR)
	}
	answers, err := r.ask(ctx, questions...)
	if err != nil {
		return nil, err
	}
	var out []pair
	there := map[pair]bool{}
	for i, a := range answers {
		for _, instance := range f.targets(a, "."+typeName+r.zone) {
			if p := (pair{pointers[i], instance}); !there[p] {
				there[p] = true
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// targets gives where the PTR records of an answer's name lead: one label below a suffix.
func (f *found) targets(a *wire.Msg, suffix string) []string {
	var out []string
	for _, rr := range a.Answer {
		ptr, ok := rr.(*wire.PTR)
		if !ok || !strings.EqualFold(ptr.Hdr.Name, a.Question[0].Name) {
			continue
		}
		f.expires(ptr.Hdr.Ttl)
		to := wire.CanonicalName(ptr.Ptr)
		if first, ok := strings.CutSuffix(to, suffix); ok && wire.CountLabel(first) == 1 {
			out = append(out, to)
		}
	}
	return out
}

// expires takes in how long an answer may be kept: until then the same would come.
func (f *found) expires(seconds uint32) {
	f.again = min(f.again, max(time.Duration(seconds)*time.Second, leastPoll))
}

// readAll reads the nodes' records. Those of other services than their PTR record's are left out.
func (r *Registry) readAll(ctx context.Context, f *found, service string, instances []pair) error {
	questions := make([]*wire.Msg, len(instances))
	for i, p := range instances {
		questions[i] = query(p.instance, wire.TypeTXT)
	}
	answers, err := r.ask(ctx, questions...)
	if err != nil {
		return err
	}
	there := map[string]map[string]bool{}
	if service != "" {
		there[service] = map[string]bool{}
	}
	var skipped []error
	for i, a := range answers {
		rr, many := r.textOf(a)
		if rr == nil {
			if !many {
				f.stray = append(f.stray, instances[i])
			}
			continue
		}
		t, err := r.readNode(rr, service)
		if err == nil && r.pointer(t.node.Service) != instances[i].service {
			continue // it moved to another service
		}
		if err != nil {
			skipped = append(skipped, fmt.Errorf("%s: %w", instances[i].instance, err))
			continue
		}
		f.expires(rr.Hdr.Ttl)
		if there[t.node.Service] == nil {
			there[t.node.Service] = map[string]bool{}
		}
		there[t.node.Service][rr.Hdr.Name] = true
		left, watched := r.seen.see(t)
		f.take(t, left, watched)
	}
	r.seen.keep(there, service == "")
	if len(skipped) > 0 {
		r.o.Logger.Warn("DNS holds records that are no nodes", "dns", r.host, "records", len(skipped), "first", skipped[0])
	}
	return nil
}

// take puts a record where it belongs.
func (f *found) take(t *txt, left time.Duration, watched bool) {
	switch {
	case left > 0:
		f.again = min(f.again, max(left, time.Millisecond))
		f.nodes = append(f.nodes, t.node)
	case watched:
		f.dead = append(f.dead, t)
	default:
		f.doubtful = append(f.doubtful, t)
	}
}

// textOf gives the TXT record of an answer. many says that there are others than one.
func (r *Registry) textOf(a *wire.Msg) (rr *wire.TXT, many bool) {
	for _, one := range a.Answer {
		t, ok := one.(*wire.TXT)
		switch {
		case !ok || !strings.EqualFold(t.Hdr.Name, a.Question[0].Name):
		case rr != nil:
			return nil, true
		default:
			rr = t
		}
	}
	if rr != nil {
		rr.Hdr.Name = wire.CanonicalName(rr.Hdr.Name)
	}
	return rr, false
}

// readNode reads a node's record, which has to stand at its own name.
func (r *Registry) readNode(rr *wire.TXT, service string) (*txt, error) {
	t, err := read(rr, r.seen.known(service, rr.Hdr.Name))
	if err != nil {
		return nil, err
	}
	if r.instance(t.node.ID) != rr.Hdr.Name {
		return nil, fmt.Errorf("%w: node %s stands at another name", registry.ErrInvalid, t.node.ID)
	}
	return t, nil
}

// at reads what stands at a node's name; nil where nothing does.
func (r *Registry) at(ctx context.Context, id string) (*txt, error) {
	answers, err := r.ask(ctx, query(r.instance(id), wire.TypeTXT))
	if err != nil {
		return nil, err
	}
	rr, many := r.textOf(answers[0])
	if rr == nil && !many {
		return nil, nil
	}
	if rr == nil {
		return nil, errForeign
	}
	t, err := r.readNode(rr, "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errForeign, err)
	}
	return t, nil
}

// errForeign: the records at a node's name are not this package's.
var errForeign = errors.New("what stands there is no node")

// plain finds the nodes of a service that has an SRV record and nothing of ours: those of the least priority value.
func (r *Registry) plain(ctx context.Context, f *found, service string) error {
	name := r.plainName(service)
	if name == "" {
		return nil
	}
	answers, err := r.ask(ctx, query(name, wire.TypeSRV))
	if err != nil {
		return err
	}
	a := answers[0]
	var records []*wire.SRV
	for range maxChain {
		next := ""
		for _, rr := range a.Answer {
			if wire.CanonicalName(rr.Header().Name) != name {
				continue
			}
			switch rr := rr.(type) {
			case *wire.SRV:
				records = append(records, rr)
				f.expires(rr.Hdr.Ttl)
			case *wire.CNAME:
				next = wire.CanonicalName(rr.Target)
				f.expires(rr.Hdr.Ttl)
			}
		}
		if next == "" || len(records) > 0 {
			break
		}
		name = next
	}
	return r.resolve(ctx, f, service, a, best(records))
}

// best gives the records of the least priority value, which are the ones to use (RFC 2782).
func best(records []*wire.SRV) []*wire.SRV {
	if len(records) == 0 || len(records) > maxPlain {
		return nil
	}
	least := slices.MinFunc(records, func(a, b *wire.SRV) int { return int(a.Priority) - int(b.Priority) }).Priority
	return slices.DeleteFunc(records, func(s *wire.SRV) bool { return s.Priority != least })
}

// resolve makes nodes of SRV records. Their hosts' addresses stand beside them in a, or are asked for.
func (r *Registry) resolve(ctx context.Context, f *found, service string, a *wire.Msg, records []*wire.SRV) error {
	ips := map[string]netip.Addr{}
	f.addresses(ips, a.Extra)
	var questions []*wire.Msg
	for _, s := range records {
		if name := wire.CanonicalName(s.Target); !ips[name].IsValid() && name != "." {
			questions = append(questions, query(name, wire.TypeA), query(name, wire.TypeAAAA))
		}
	}
	answers, err := r.ask(ctx, questions...)
	if isRefusal(err) {
		answers, err = nil, nil // a host of somebody else's: its name is left to whoever dials
	}
	if err != nil {
		return err
	}
	for _, a := range answers {
		f.addresses(ips, a.Answer)
	}
	for _, s := range records {
		name := wire.CanonicalName(s.Target)
		host, port := strings.TrimSuffix(name, "."), strconv.Itoa(int(s.Port))
		n := registry.Node{
			ID: host + "/" + port, Service: service, Address: net.JoinHostPort(host, port),
			Metadata: map[string]string{MetaTarget: host, MetaWeight: strconv.Itoa(int(s.Weight))},
		}
		if ip := ips[name]; ip.IsValid() {
			n.Address = net.JoinHostPort(ip.String(), port)
		}
		if host == "" || s.Port == 0 || registry.Validate(n) != nil { // "." says that there is no such service
			continue
		}
		f.nodes = append(f.nodes, n)
	}
	return nil
}

// addresses takes in the least address of each host, that of IPv4 before IPv6.
func (f *found) addresses(ips map[string]netip.Addr, records []wire.RR) {
	for _, rr := range records {
		var raw net.IP
		switch rr := rr.(type) {
		case *wire.A:
			raw = rr.A
		case *wire.AAAA:
			raw = rr.AAAA
		default:
			continue
		}
		ip, ok := netip.AddrFromSlice(raw)
		if !ok {
			continue
		}
		f.expires(rr.Header().Ttl)
		name := wire.CanonicalName(rr.Header().Name)
		if at := ips[name]; !at.IsValid() || ip.Unmap().Less(at) {
			ips[name] = ip.Unmap()
		}
	}
}
