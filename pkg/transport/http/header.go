package http

import (
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The headers of the protocol beside transport's. Names are canonical, as net/http keeps them.
const (
	headerVersion = "Micro-Version" // of the frames, in an upgrade and its answer
	headerTimeout = "Micro-Timeout" // how long the caller waits, as "1.5s"
	headerNanos   = "Timeout"       // the same as go-micro sends it, in nanoseconds
	headerID      = "Micro-Id"      // go-micro's sequence number: its presence selects go-micro's dialect
	headerError   = "Micro-Error"   // go-micro's error
)

// upgradeProtocol and upgradeVersion name the frames in Upgrade and Micro-Version.
const (
	upgradeProtocol = "micro"
	upgradeVersion  = "1"
)

// ownHeader reports whether a header, canonical, belongs to HTTP or to this transport, and is no metadata: those of one
// hop (RFC 9110 section 7.6.1), those that describe the HTTP message, and those that become fields of a message.
func ownHeader(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings",
		"Host", "Content-Length", "Content-Encoding", "Content-Type", "Accept-Encoding", "Expect", "Date",
		headerTimeout, headerNanos,
		"Micro-Service", "Micro-Endpoint", "Micro-Method", "Micro-Topic", headerID, headerError,
		"X-Micro-Service", "X-Micro-Endpoint", "X-Micro-Method", "X-Micro-Topic", "X-Micro-Id", "X-Micro-Error":
		return true
	}
	return false
}

// first gives the first value there is of some headers: a name, and the older ones for the same.
func first(h http.Header, names ...string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// readHeader fills m's Header and Timeout from a request's head. endpoint is what the path and the headers call.
func readHeader(m *transport.Message, h http.Header, endpoint string) *status.Error {
	contentType, e := mediaType(h)
	if e != nil {
		return e
	}
	pairs := [...][2]string{
		{transport.HeaderService, first(h, "Micro-Service", "X-Micro-Service")},
		{transport.HeaderEndpoint, endpoint},
		{transport.HeaderTopic, first(h, "Micro-Topic", "X-Micro-Topic")},
		{transport.HeaderID, first(h, headerID, "X-Micro-Id")},
		{transport.HeaderContentType, contentType},
	}
	for _, p := range pairs {
		if p[1] == "" {
			continue
		}
		if e := set(m, p[0], p[1]); e != nil {
			return e
		}
	}
	for name, values := range h {
		if ownHeader(name) || listed(h, name) {
			continue
		}
		if e := set(m, name, strings.Join(values, ", ")); e != nil {
			return e
		}
	}
	m.Timeout, e = timeout(h)
	return e
}

func set(m *transport.Message, key, value string) *status.Error {
	md, err := m.Header.Set(key, value)
	if err == nil {
		m.Header = md
		return nil
	}
	if len(key) > metadata.MaxKey || len(value) > metadata.MaxValue || m.Header.Len() >= metadata.MaxPairs ||
		len(m.Header)+len(key)+len(value)+3 > metadata.MaxSize {
		return status.Wrap(err, status.HeaderTooLarge, "%s", err)
	}
	return status.Wrap(err, status.InvalidArgument, "header %.100q: %s", key, err)
}

// listed reports whether Connection names the header as one of this hop.
func listed(h http.Header, name string) bool {
	for _, v := range h["Connection"] {
		for option := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(option), name) {
				return true
			}
		}
	}
	return false
}

// mediaType gives the body's content type without parameters. It refuses those that a browser sends across sites
// without asking (the CORS-safelisted ones of the Fetch standard), and a missing one, which is as good as those.
func mediaType(h http.Header) (string, *status.Error) {
	raw := h.Get("Content-Type")
	if raw == "" {
		return "", status.New(status.UnsupportedMedia, "a call needs a Content-Type, such as application/json")
	}
	if v := h.Get("Content-Encoding"); v != "" && v != "identity" {
		return "", status.New(status.UnsupportedMedia, "Content-Encoding %.100q is not taken: send the body as it is", v)
	}
	ct, params, err := mime.ParseMediaType(raw)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || !strings.Contains(ct, "/") {
		return "", status.New(status.UnsupportedMedia, "Content-Type %.100q is no media type", raw)
	}
	switch ct {
	case "text/plain", "application/x-www-form-urlencoded", "multipart/form-data":
		return "", status.New(status.UnsupportedMedia, "Content-Type %s is not taken, as any web page can send it: "+
			"use that of the body's encoding, such as application/json", ct)
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", status.New(status.UnsupportedMedia, "charset %.100q is not taken: use utf-8", charset)
	}
	return ct, nil
}

// timeout reads how long the caller waits: Micro-Timeout, else go-micro's Timeout. Zero is no limit.
func timeout(h http.Header) (time.Duration, *status.Error) {
	var d time.Duration
	if v := h.Get(headerTimeout); v != "" {
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			return 0, status.New(status.InvalidArgument, "%s: %.100q is no duration, such as 1.5s", headerTimeout, v)
		}
	} else if v := h.Get(headerNanos); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, status.New(status.InvalidArgument, "%s: %.100q is no number of nanoseconds", headerNanos, v)
		}
		d = time.Duration(n)
	} else {
		return 0, nil
	}
	if d <= 0 {
		return 0, status.Refuse(status.DeadlineExceeded, "the call came with no time left")
	}
	return d, nil
}

// endpointOf gives what a request calls. The path is "/", or "/" and the endpoint, in one spelling only: there is nothing
// to decode, and so nothing that two parsers could read differently. Empty is a request that names only a topic.
func endpointOf(r *http.Request) (string, *status.Error) {
	header := first(r.Header, "Micro-Endpoint", "X-Micro-Endpoint", "Micro-Method", "X-Micro-Method")
	if header != "" && !validEndpoint(header) {
		return "", status.New(status.InvalidArgument, "endpoint %.100q: want letters, digits, '.', '_' and '-'", header)
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return "", status.New(status.InvalidArgument, "a call takes no query: what it says goes into the body")
	}
	path := r.URL.EscapedPath()
	switch {
	case path == "/" && header == "" && first(r.Header, "Micro-Topic", "X-Micro-Topic") == "":
		return "", status.New(status.NotFound, "no endpoint: call POST /Say.Hello, or POST / with a Micro-Endpoint header")
	case path == "/":
		return header, nil
	case len(path) < 2 || path[0] != '/' || !validEndpoint(path[1:]):
		return "", status.New(status.NotFound, "path %.100q names no endpoint: want one such as /Say.Hello", path)
	case header != "" && header != path[1:]:
		return "", status.New(status.InvalidArgument, "the path names endpoint %.100q and the header %.100q", path[1:], header)
	}
	return path[1:], nil
}

// validEndpoint reports whether s is one path segment that stands for itself, of at most 256 bytes.
func validEndpoint(s string) bool {
	if s == "" || len(s) > 256 || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// writeHeader puts a message's metadata into HTTP headers. The framework's own headers are the caller's to write.
func writeHeader(h http.Header, md metadata.MD) {
	for key, value := range md.All() {
		name := http.CanonicalHeaderKey(key)
		if !ownHeader(name) {
			h.Set(name, value)
		}
	}
}

// oneLine makes an error's JSON fit for a header's value: it is one line already, and DEL is no part of a field value
// (RFC 9110 section 5.5).
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
