package server

import (
	"bytes"
	"crypto/sha256"
	stdhttp "net/http"
	"strconv"
	"time"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/bodies"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/hold"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/shortcut"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
)

// renewals answers renewals on their connections, of a server that listens on address: what most requests are is not to cost what net/http
// does. It does what the handlers do, in the cases that it knows, and leaves the others to them. Nil where the nodes are not the server's own.
func (s *Server) renewals(address string) shortcut.Answer {
	t, ok := s.held.(*hold.Table)
	if !ok {
		return nil
	}
	hosts := hostcheck.Hosts(hostcheck.Options{Address: address, AllowedHosts: s.o.AllowedHosts})
	return func(out []byte, r *shortcut.Request) ([]byte, bool) {
		id, ok := bytes.CutPrefix(r.Path, []byte(wire.NodesPath+"/"))
		secret := string(r.Lease)
		if !ok || !plainID(id) || s.life.Err() != nil || string(r.ContentType) != wire.JSONType || !wire.ValidSecret(secret) || !hosts(r.Host) {
			return nil, false
		}
		asked, ok := bytes.CutPrefix(r.Query, []byte("ttl="))
		if !ok && len(r.Query) > 0 || bytes.ContainsAny(asked, "%+&;") {
			return nil, false
		}
		ttl, err := s.ttl(string(asked))
		if err != nil {
			return nil, false
		}
		host, loopback := parsePeer(r.Remote.String())
		now := time.Now()
		if s.o.Token != "" && (!loopback && s.wrong.Spent(host, now) || !s.bearer(string(r.Authorization))) {
			return nil, false
		}
		n, ok := s.bodies.Sent(string(id), r.Body)
		if !ok {
			return nil, false
		}
		by := sha256.Sum256([]byte(secret))
		if loopback {
			host = string(by[:])
		}
		if _, ok := s.writes.Take(host, now); !ok {
			return nil, false
		}
		if !t.Renew(by, n, ttl) {
			s.writes.Back(host)
			return nil, false
		}
		s.metrics.count(request{stdhttp.MethodPut, stdhttp.StatusOK})
		return s.appendRenewed(out, ttl, now), true
	}
}

// plainID reports whether an id in a path means itself, whoever reads the path.
func plainID(id []byte) bool {
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return len(id) > 0 && string(id) != "." && string(id) != ".."
}

// appendRenewed appends the answer to a renewal.
func (s *Server) appendRenewed(out []byte, ttl time.Duration, now time.Time) []byte {
	var space [128]byte
	body := bodies.AppendHead(space[:0], s.epoch, s.nodes.Revision(), false)
	body = append(append(append(body, `,"ttl":"`...), ttl.String()...), "\"}\n"...)
	out = append(out, "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: "+wire.JSONType+"\r\nX-Content-Type-Options: nosniff\r\nDate: "...)
	out = now.UTC().AppendFormat(out, stdhttp.TimeFormat)
	out = append(out, "\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(body)), 10)
	return append(append(out, "\r\n\r\n"...), body...)
}
