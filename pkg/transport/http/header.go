package http

import (
	"net/http"
	"strings"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The headers of the protocol beside transport's. Names are canonical, as net/http keeps them.
const (
	headerVersion = "Micro-Version" // of the frames, in an upgrade and its answer
	headerTimeout = "Micro-Timeout" // how long the caller waits, as "1.5s"
	headerNanos   = "Timeout"       // the same as go-micro sends it, in nanoseconds
	headerID      = "Micro-Id"      // go-micro's sequence number: its presence selects go-micro's dialect
	headerOldID   = "X-Micro-Id"    // an older name of the same
	headerError   = "Micro-Error"   // go-micro's error

	headerOldError  = "X-Micro-Error"
	headerStream    = "Micro-Stream" // go-micro's number of a stream
	headerOldStream = "X-Micro-Stream"
)

// upgradeProtocol and upgradeVersion name the frames in Upgrade and Micro-Version.
const (
	upgradeProtocol = "micro"
	upgradeVersion  = "1"
)

// get gives the first value of a header, whose name is canonical.
func get(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// first gives the first value there is of some headers: a name, and the older ones for the same.
func first(h http.Header, names ...string) string {
	for _, name := range names {
		if v := get(h, name); v != "" {
			return v
		}
	}
	return ""
}

// writeHeader puts a message's metadata into HTTP headers. The framework's own headers are the caller's to write.
func writeHeader(h http.Header, md metadata.MD) {
	for key, value := range md.Pairs() {
		switch string(key) {
		case transport.HeaderContentType, transport.HeaderEndpoint, transport.HeaderService, transport.HeaderError:
			continue // as below, at less cost
		}
		name := http.CanonicalHeaderKey(string(key))
		if _, own := fieldOf(name); !own {
			h[name] = []string{string(value)}
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
