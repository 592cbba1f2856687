// Package hostcheck keeps web pages away from HTTP servers that listen on loopback alone.
//
// Such a server trusts whoever reaches it, and the browser of this machine reaches it for any page: by a name that the
// page's owner points to 127.0.0.1 (DNS rebinding), or by a request across sites. The first has a foreign name in Host,
// the second in Origin (RFC 6454) or says so in Sec-Fetch-Site (W3C Fetch Metadata).
package hostcheck

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/status"
)

// sender names this package in the errors that it answers with.
const sender = "micro.hostcheck"

// Options say what a server takes.
type Options struct {
	// Address is where the server listens, as a [net.Listener] tells it. Checks are made where it is a loopback address.
	Address string
	// AllowedHosts are names that are taken beside localhost and the loopback addresses. A port in them is ignored, and
	// so is case.
	AllowedHosts []string
	// AllowedOrigins are web origins, in lower case, that are taken whatever their host and site, such as "https://app.example"; "*" is all.
	AllowedOrigins []string
}

// Wrap returns h behind the checks: 421 for a foreign Host, 403 for a foreign Origin or a request across sites, each
// with a JSON status error. Where the address is not loopback it returns h itself.
func Wrap(h http.Handler, o Options) http.Handler {
	if !Loopback(o.Address) {
		return h
	}
	c := newChecker(o)
	c.next = h
	return c
}

// Hosts gives what tells whether Wrap lets a request with a Host header in that has no header of a browser's: no Origin and no Sec-Fetch-Site.
// It may be called concurrently.
func Hosts(o Options) func(host []byte) bool {
	if !Loopback(o.Address) {
		return func([]byte) bool { return true }
	}
	c := newChecker(o)
	return func(host []byte) bool {
		if last := c.last.Load(); last != nil && *last == string(host) {
			return true
		}
		return c.host(string(host))
	}
}

func newChecker(o Options) *checker {
	c := &checker{origins: o.AllowedOrigins}
	for _, name := range o.AllowedHosts {
		c.allowed = append(c.allowed, bare(name))
	}
	return c
}

// Loopback reports whether address, a host with or without a port, is a loopback address or localhost.
func Loopback(address string) bool { return local(bare(address)) }

// Network gives the network on which to listen at an address: "tcp4" for a literal of IPv4, since 0.0.0.0 on "tcp" takes the connections of
// IPv6 as well.
func Network(address string) string {
	host, _, _ := net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		return "tcp4"
	}
	return "tcp"
}

type checker struct {
	next    http.Handler
	allowed []string
	origins []string
	last    atomic.Pointer[string] // a Host that was let in: most requests have that of the one before
}

func (c *checker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e := c.check(r); e != nil {
		e.ID = sender
		Refuse(w, e)
		return
	}
	c.next.ServeHTTP(w, r)
}

func (c *checker) check(r *http.Request) *status.Error {
	if !c.host(r.Host) {
		return status.Refuse(status.Misdirected, "the Host header names %.100q, which this server is not: it listens on loopback alone; "+
			"call it by localhost, or allow the name", r.Host)
	}
	origins := r.Header["Origin"]
	if len(origins) == 1 && (slices.Contains(c.origins, strings.ToLower(origins[0])) || slices.Contains(c.origins, "*")) {
		return nil
	}
	for _, origin := range origins {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || !c.known(u.Host) {
			return status.Refuse(status.PermissionDenied, "requests of the web origin %.100q are not taken", origin)
		}
	}
	if slices.Contains(r.Header["Sec-Fetch-Site"], "cross-site") {
		return status.Refuse(status.PermissionDenied, "requests from other web sites are not taken")
	}
	return nil
}

func (c *checker) host(host string) bool {
	if last := c.last.Load(); last != nil && *last == host {
		return true
	}
	if !c.known(host) {
		return false
	}
	kept := host // else every host would be on the heap
	c.last.Store(&kept)
	return true
}

func (c *checker) known(hostport string) bool {
	host := bare(hostport)
	return local(host) || slices.Contains(c.allowed, host)
}

// bare gives a host in lower case, without port, brackets and the root's dot; "" where hostport is malformed.
func bare(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func local(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Refuse answers with e's code and e as a JSON object.
func Refuse(w http.ResponseWriter, e *status.Error) {
	body, err := json.Marshal(e)
	if err != nil { // it is a struct of text and numbers
		body = nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(int(e.Code))
	_, _ = w.Write(append(body, '\n')) // a client that has gone needs no answer
}
