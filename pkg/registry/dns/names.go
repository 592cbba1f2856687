package dns

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
)

const (
	placeholder  = "{service}"
	typeName     = "_micro._tcp."          // of all nodes, as DNS-SD has it
	subName      = "_sub." + typeName      // below which each service stands
	servicesName = "_services." + typeName // what services there are
	maxLabel     = 63
)

// names checks the zone and the name of plain SRV records.
func (o *Options) names() error {
	if _, ok := wire.IsDomainName(o.Zone); !ok || strings.Trim(o.Zone, ".") == "" || strings.ContainsAny(o.Zone, " /\\\"") {
		return fmt.Errorf("registry: dns: zone %q: want a domain, such as svc.example.org", o.Zone)
	}
	if longest := strings.Repeat("x", maxLabel) + "." + subName + wire.Fqdn(o.Zone); !fits(longest) {
		return fmt.Errorf("registry: dns: the zone %s is too long", o.Zone)
	}
	if o.SRV == "" {
		o.SRV = defaultSRV
	}
	if strings.Count(o.SRV, placeholder) != 1 || strings.Contains(strings.TrimSuffix(o.SRV, "."), "..") || strings.ContainsAny(o.SRV, " \\\"/") {
		return errors.New(`registry: dns: srv: want a name with one "{service}" in it, such as _grpc._tcp.{service}.default.svc`)
	}
	return nil
}

func fits(name string) bool {
	_, ok := wire.IsDomainName(name)
	return ok
}

// label gives a name as one label of a domain's, of so many bytes at most. DNS does not tell upper case from lower: a name with upper
// case, or one that is too long, is its beginning and its hash, behind a mark that no name has.
func label(name string, limit int) string {
	if len(name) <= limit && strings.ToLower(name) == name {
		return strings.ReplaceAll(name, ".", `\.`)
	}
	sum := sha256.Sum256([]byte(name))
	end := "~" + hex.EncodeToString(sum[:10])
	return strings.ReplaceAll(strings.ToLower(name[:min(len(name), limit-len(end))]), ".", `\.`) + end
}

// instance is where a node's SRV and TXT records stand.
func (r *Registry) instance(id string) string { return label(id, maxLabel) + "." + typeName + r.zone }

// pointer is where a service's PTR records stand, one for each node.
func (r *Registry) pointer(service string) string {
	return "_" + label(service, maxLabel-1) + "." + subName + r.zone
}

// services is where PTR records to all services' pointers stand.
func (r *Registry) services() string { return servicesName + r.zone }

// hostOf gives the name of a node's address. Each node has one of its own, which goes with it.
func (r *Registry) hostOf(n registry.Node, ip netip.Addr) string {
	sum := sha256.Sum256([]byte(n.ID))
	text := strings.NewReplacer(".", "-", ":", "-").Replace(ip.StringExpanded())
	return "ip-" + text + "-" + hex.EncodeToString(sum[:4]) + "." + r.zone
}

// plainName is where a service has an SRV record without anything of ours; empty where no such name can be. A service's dots part
// labels where its place in the pattern is a whole label, else they belong to the label.
func (r *Registry) plainName(service string) string {
	before, after, _ := strings.Cut(r.o.SRV, placeholder)
	whole := (before == "" || strings.HasSuffix(before, ".")) && (after == "" || strings.HasPrefix(after, "."))
	if !whole {
		service = strings.ReplaceAll(service, ".", `\.`)
	}
	name := wire.Fqdn(before + service + after)
	if !strings.HasSuffix(r.o.SRV, ".") {
		name += r.zone
	}
	if !fits(name) {
		return ""
	}
	return wire.CanonicalName(name)
}

// target gives the name and port of an SRV record for an address, and the IP that the name stands for where it has to be given a
// record. It is not ok where SRV has no way to say it.
func (r *Registry) target(n registry.Node) (name string, port uint16, ip netip.Addr, ok bool) {
	host, p, err := net.SplitHostPort(n.Address)
	if err != nil {
		return "", 0, ip, false
	}
	number, err := strconv.ParseUint(p, 10, 16)
	if err != nil || number == 0 {
		return "", 0, ip, false
	}
	if ip, err = netip.ParseAddr(host); err == nil {
		ip = ip.Unmap().WithZone("")
		return r.hostOf(n, ip), uint16(number), ip, true
	}
	if !hostname(host) {
		return "", 0, ip, false
	}
	return wire.CanonicalName(host), uint16(number), netip.Addr{}, true
}

// hostname reports whether a nameserver takes a name as that of a host.
func hostname(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if !fits(name + ".") {
		return false
	}
	for l := range strings.SplitSeq(name, ".") {
		if l == "" || strings.HasPrefix(l, "-") || strings.HasSuffix(l, "-") ||
			strings.ContainsFunc(l, func(c rune) bool {
				return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
			}) {
			return false
		}
	}
	return true
}
