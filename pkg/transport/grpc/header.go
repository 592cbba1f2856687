package grpc

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// mediaType is gRPC's content type. Behind a plus stands the messages' own.
const mediaType = "application/grpc"

// The headers of gRPC, and those that go-micro adds. Names are canonical, as net/http keeps them.
const (
	headerTimeout   = "Grpc-Timeout"
	headerEncoding  = "Grpc-Encoding"
	headerAccepted  = "Grpc-Accept-Encoding"
	headerStatus    = "Grpc-Status"
	headerMessage   = "Grpc-Message"
	headerDetails   = "Grpc-Status-Details-Bin"
	headerService   = "Micro-Service"  // ours: the service that is meant
	headerMicroType = "X-Content-Type" // go-micro's: the content type without gRPC's part
	headerNanos     = "Timeout"        // go-micro's: as grpc-timeout, in nanoseconds
)

// The values of headers that nearly all messages have. They are not changed.
var (
	trailersValue = []string{"trailers"}
	gzipValue     = []string{"gzip"}
	agentValue    = []string{ownAgent}
	plainValue    = []string{mediaType}
)

// ownAgent is the User-Agent of this package's clients.
const ownAgent = "micro-grpc/1"

// isOwn reports whether a header belongs to HTTP, to gRPC or to the framework, and is no metadata.
func isOwn(name string) bool {
	switch name {
	case "Content-Type", "Te", "Content-Length", "Content-Encoding", "Accept-Encoding", "Date", "Trailer", "Connection", "Host", "Keep-Alive",
		"Proxy-Connection", "Transfer-Encoding", "Upgrade", headerTimeout, headerEncoding, headerAccepted, headerStatus, headerMessage,
		headerDetails, "Grpc-Message-Type", headerMicroType, headerNanos:
		return true
	}
	return false
}

// contentType gives the content type of a call's messages: what stands behind gRPC's, and protobuf where nothing does.
func contentType(grpcType string) string {
	kind, _, _ := strings.Cut(grpcType, ";")
	sub, ok := strings.CutPrefix(strings.TrimSpace(kind), mediaType+"+")
	switch sub = strings.ToLower(sub); {
	case !ok, sub == "proto", sub == "protobuf":
		return "application/protobuf"
	case sub == "json":
		return "application/json"
	case sub == "bytes":
		return "application/octet-stream"
	}
	return "application/" + sub
}

// grpcType gives gRPC's content type for that of messages.
func grpcType(contentType string) string {
	switch contentType {
	case "", "application/protobuf":
		return mediaType
	case "application/octet-stream":
		return mediaType + "+bytes"
	}
	return mediaType + "+" + strings.TrimPrefix(contentType, "application/")
}

// head is what is read of the headers of a request.
type head struct {
	metadata metadata.MD
	tooLong  bool // a length is over its limit: metadata is not whole
}

// add appends a pair, whose key it makes lower case. It is not checked.
func (h *head) add(key, value string) {
	if len(key) > metadata.MaxKey || len(value) > metadata.MaxValue {
		h.tooLong = true
		return
	}
	md := append(h.metadata, byte(len(key)))
	at := len(md)
	md = append(md, key...)
	for i, c := range md[at:] {
		if 'A' <= c && c <= 'Z' {
			md[at+i] = c + ('a' - 'A')
		}
	}
	md = binary.BigEndian.AppendUint16(md, uint16(len(value)))
	h.metadata = append(md, value...)
}

// take adds the metadata among headers. Those of the framework's names are left out: nobody claims an identity by them.
func (h *head) take(headers http.Header) {
	for name, values := range headers {
		if len(values) == 0 || isOwn(name) || transport.Reserved(name) {
			continue
		}
		if name == "User-Agent" && values[0] == ownAgent {
			continue
		}
		value := values[0]
		if len(values) > 1 {
			value = strings.Join(values, ", ")
		}
		h.add(name, value)
	}
}

// check tells what is wrong with the metadata.
func (h *head) check() *status.Error {
	if h.tooLong {
		return status.New(status.HeaderTooLarge, "a pair of the metadata is too long: a key has at most %d bytes, a value %d", metadata.MaxKey, metadata.MaxValue)
	}
	if _, err := metadata.Parse(h.metadata); err != nil {
		if len(h.metadata) > metadata.MaxSize || h.metadata.Len() > metadata.MaxPairs {
			return status.Wrap(err, status.HeaderTooLarge, "%v", err)
		}
		return status.Wrap(err, status.InvalidArgument, "%v", err)
	}
	return nil
}

// timeout reads how long the caller waits: grpc-timeout, else go-micro's. Zero is no limit.
func timeout(h http.Header) (time.Duration, *status.Error) {
	if v := h.Get(headerTimeout); v != "" {
		d, ok := parseTimeout(v)
		if !ok {
			return 0, status.New(status.InvalidArgument, "grpc-timeout: %.40q is no timeout, such as 1500m", v)
		}
		if d <= 0 {
			return 0, status.Refuse(status.DeadlineExceeded, "the call came with no time left")
		}
		return d, nil
	}
	if n, err := strconv.ParseInt(h.Get(headerNanos), 10, 64); err == nil && n > 0 {
		return time.Duration(n), nil
	}
	return 0, nil
}

// units are those of grpc-timeout.
var units = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// parseTimeout reads a grpc-timeout: up to eight digits and a unit.
func parseTimeout(v string) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	unit := units[v[len(v)-1]]
	if err != nil || unit == 0 {
		return 0, false
	}
	if n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
}

// formatTimeout writes a grpc-timeout in the finest unit that eight digits hold, and rounds up.
func formatTimeout(d time.Duration) string {
	const most = 99_999_999
	for _, u := range [...]struct {
		unit time.Duration
		name byte
	}{{time.Nanosecond, 'n'}, {time.Microsecond, 'u'}, {time.Millisecond, 'm'}, {time.Second, 'S'}, {time.Minute, 'M'}} {
		n := int64(d / u.unit)
		if d%u.unit > 0 {
			n++
		}
		if n <= most {
			return strconv.FormatInt(max(n, 1), 10) + string(u.name)
		}
	}
	return strconv.FormatInt(int64(d/time.Hour), 10) + "H"
}

// writeMetadata puts a message's metadata into HTTP headers, under names that begin with prefix. The framework's own headers are the
// caller's to write. It fails on a key that ends in -bin whose value is not in base64, which peers take for a broken message.
func writeMetadata(h http.Header, prefix string, md metadata.MD) *status.Error {
	for key, value := range md.Pairs() {
		name := string(key)
		if transport.Reserved(name) {
			continue
		}
		canonical := http.CanonicalHeaderKey(name)
		if isOwn(canonical) {
			continue
		}
		if strings.HasSuffix(name, "-bin") {
			for part := range strings.SplitSeq(string(value), ",") {
				if _, err := decodeBin(strings.TrimSpace(part)); err != nil {
					return status.Wrap(err, status.Internal, "metadata %q: the value of a key that ends in -bin is base64, and this is not", name)
				}
			}
		}
		h[prefix+canonical] = []string{string(value)}
	}
	return nil
}

// methodPath gives the path of the endpoint of a service: "/greeter.Say/Hello" for Say.Hello of greeter. An endpoint that is
// written with a slash, "helloworld.Greeter/SayHello", is a path already.
func methodPath(service, endpoint string) (string, error) {
	if bare := strings.TrimPrefix(endpoint, "/"); strings.Contains(bare, "/") {
		endpoint = bare
	} else if at := strings.LastIndexByte(bare, '.'); at >= 0 {
		endpoint = bare[:at] + "/" + bare[at+1:]
		if service != "" {
			endpoint = service + "." + endpoint
		}
	} else {
		endpoint = service + "/" + bare
	}
	for i := range len(endpoint) {
		if c := endpoint[i]; c <= ' ' || c >= 0x7f || c == '?' || c == '#' || c == '%' {
			return "", fmt.Errorf("endpoint %.100q: no method of gRPC is called so", endpoint)
		}
	}
	return "/" + endpoint, nil
}
