package server

import (
	"crypto/sha256"
	"fmt"
	"net"
	stdhttp "net/http"
	"net/netip"
	"time"

	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/status"
)

const (
	burstSeconds = 10 // writes of so many seconds may come at once
	authRate     = 10 // wrong tokens that a client may send in a second
)

// peer gives the address that a request came from, and whether it is this machine.
func peer(r *stdhttp.Request) (host string, loopback bool) { return parsePeer(r.RemoteAddr) }

func parsePeer(address string) (host string, loopback bool) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address, false
	}
	a, err := netip.ParseAddr(host)
	return host, err == nil && a.Unmap().IsLoopback()
}

// writer tells who writes: the address. The programs of this machine share theirs, so their leases tell.
func writer(r *stdhttp.Request) string {
	host, loopback := peer(r)
	if secret := r.Header.Get(wire.LeaseHeader); loopback && wire.ValidSecret(secret) {
		sum := sha256.Sum256([]byte(secret))
		return string(sum[:])
	}
	return host
}

// paced lets a client write no faster than MaxWrites.
func (s *Server) paced(next stdhttp.HandlerFunc) stdhttp.HandlerFunc {
	return func(w stdhttp.ResponseWriter, r *stdhttp.Request) {
		if wait, ok := s.writes.Take(writer(r), time.Now()); !ok {
			retryAfter(w, wait)
			s.refuse(w, status.ResourceExhausted, "this client writes more than %d times a second", s.o.MaxWrites)
			return
		}
		next(w, r)
	}
}

// barred reports whether a client has sent so many wrong tokens that its next one is not looked at. Of the programs of
// this machine one must not shut out the others.
func (s *Server) barred(r *stdhttp.Request) bool {
	host, loopback := peer(r)
	return !loopback && s.wrong.Spent(host, time.Now())
}

// unauthenticated answers a request without the token.
func (s *Server) unauthenticated(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	host, _ := peer(r)
	if wait, ok := s.wrong.Take(host, time.Now()); !ok {
		retryAfter(w, wait)
		s.refuse(w, status.ResourceExhausted, "over %d wrong tokens a second from %.60s", authRate, host)
		return
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	s.refuse(w, status.Unauthenticated, "the registry server wants its token")
}

func retryAfter(w stdhttp.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", fmt.Sprint(int((wait+time.Second-1)/time.Second)))
}
