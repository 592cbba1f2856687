package http

import (
	"encoding/binary"
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

// field is a header that this transport reads.
type field int

// The headers that are read, and noField for those that belong to HTTP and are neither read nor metadata.
const (
	noField field = iota
	fieldService
	fieldOldService
	fieldEndpoint
	fieldOldEndpoint
	fieldMethod
	fieldOldMethod
	fieldTopic
	fieldOldTopic
	fieldID
	fieldOldID
	fieldStream
	fieldOldStream
	fieldTimeout
	fieldNanos
	fieldType
	fieldEncoding
	fields
)

// fieldOf gives the field of a header, whose name is canonical. own says that it belongs to HTTP or to this transport, and is
// no metadata: the headers of one hop (RFC 9110 section 7.6.1), those that describe the HTTP message, and those that
// become fields of a message.
func fieldOf(name string) (f field, own bool) {
	switch name {
	case "Micro-Service":
		return fieldService, true
	case "X-Micro-Service":
		return fieldOldService, true
	case "Micro-Endpoint":
		return fieldEndpoint, true
	case "X-Micro-Endpoint":
		return fieldOldEndpoint, true
	case "Micro-Method":
		return fieldMethod, true
	case "X-Micro-Method":
		return fieldOldMethod, true
	case "Micro-Topic":
		return fieldTopic, true
	case "X-Micro-Topic":
		return fieldOldTopic, true
	case headerID:
		return fieldID, true
	case headerOldID:
		return fieldOldID, true
	case headerStream:
		return fieldStream, true
	case headerOldStream:
		return fieldOldStream, true
	case headerTimeout:
		return fieldTimeout, true
	case headerNanos:
		return fieldNanos, true
	case "Content-Type":
		return fieldType, true
	case "Content-Encoding":
		return fieldEncoding, true
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings", "Host", "Content-Length", "Accept-Encoding", "Expect", "Date",
		headerError, headerOldError:
		return noField, true
	}
	return noField, false
}

// head is what is read of the headers of a request: all of it in one walk, since most requests have few headers.
type head struct {
	header   http.Header
	values   [fields]string // the first of each
	metadata metadata.MD    // the other headers; it is not checked
	tooLong  bool           // metadata is not whole: a length is over its limit

	// Of the latest request, where nothing was wrong with its head: most that follow have the same, but for the length.
	kept http.Header // nil: there is none
	path string
	wait time.Duration
}

// of fills m's Header and Timeout with what the head of r says. The header is valid until the next read.
func (hd *head) of(m *transport.Message, r *http.Request) *status.Error {
	if hd.again(r) {
		m.Header, m.Timeout = hd.metadata, hd.wait
		return nil
	}
	hd.read(r.Header)
	endpoint, e := hd.endpoint(r)
	if e == nil {
		e = hd.message(m, endpoint)
	}
	if e == nil {
		hd.wait = m.Timeout
		hd.keep(r)
	}
	return e
}

// keepHead is the largest metadata, in bytes, that is kept with the headers which it was read from.
const keepHead = 1 << 10

// keep has the head of the next request not be read where it is the same as that of r, which was read.
func (hd *head) keep(r *http.Request) {
	if len(hd.metadata) <= keepHead && r.URL.RawPath == "" {
		hd.kept, hd.path = r.Header, r.URL.Path
	}
}

// again reports whether r has the head that was kept, but for the length of its body.
func (hd *head) again(r *http.Request) bool {
	if hd.kept == nil || len(r.Header) != len(hd.kept) || r.URL.Path != hd.path || r.URL.RawPath != "" || r.URL.RawQuery != "" || r.URL.ForceQuery {
		return false
	}
	for name, values := range r.Header {
		former := hd.kept[name]
		if len(values) != 1 || len(former) != 1 || values[0] != former[0] && name != "Content-Length" {
			return false
		}
	}
	return true
}

// read reads h, and keeps the storage of the former metadata.
func (hd *head) read(h http.Header) {
	*hd = head{header: h, metadata: hd.metadata[:0]}
	lists := len(h["Connection"]) > 0
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		value := values[0]
		if f, own := fieldOf(name); own {
			hd.values[f] = value
			continue
		}
		if lists && listed(h, name) {
			continue
		}
		if len(values) > 1 {
			value = strings.Join(values, ", ")
		}
		hd.add(name, value)
	}
}

// add appends a pair, whose key it makes lower case, to the metadata.
func (hd *head) add(key, value string) {
	if len(key) > metadata.MaxKey || len(value) > metadata.MaxValue {
		hd.tooLong = true
		return
	}
	md := append(hd.metadata, byte(len(key)))
	at := len(md)
	md = append(md, key...)
	for i, c := range md[at:] {
		if 'A' <= c && c <= 'Z' {
			md[at+i] = c + ('a' - 'A')
		}
	}
	md = binary.BigEndian.AppendUint16(md, uint16(len(value)))
	hd.metadata = append(md, value...)
}

// first gives the first value there is of some fields: one, and the older ones for the same.
func (hd *head) first(fs ...field) string {
	for _, f := range fs {
		if v := hd.values[f]; v != "" {
			return v
		}
	}
	return ""
}

// goMicro reports whether the request is in go-micro's dialect, as isGoMicro does.
func (hd *head) goMicro() bool {
	return hd.first(fieldID, fieldOldID, fieldStream, fieldOldStream) != ""
}

// message fills m's Header and Timeout. endpoint is what the path and the headers call. The header is valid until the next
// read.
func (hd *head) message(m *transport.Message, endpoint string) *status.Error {
	contentType, e := hd.mediaType()
	if e != nil {
		return e
	}
	pairs := [...][2]string{
		{transport.HeaderService, hd.first(fieldService, fieldOldService)},
		{transport.HeaderEndpoint, endpoint},
		{transport.HeaderTopic, hd.first(fieldTopic, fieldOldTopic)},
		{transport.HeaderID, hd.first(fieldID, fieldOldID)},
		{transport.HeaderContentType, contentType},
	}
	for _, p := range pairs {
		if p[1] != "" {
			hd.add(p[0], p[1])
		}
	}
	if _, err := metadata.Parse(hd.metadata); err != nil || hd.tooLong {
		return hd.refusal(pairs[:])
	}
	m.Header = hd.metadata
	m.Timeout, e = hd.timeout()
	return e
}

// refusal tells which header metadata cannot hold, and why.
func (hd *head) refusal(pairs [][2]string) *status.Error {
	for name, values := range hd.header {
		if _, own := fieldOf(name); !own && !listed(hd.header, name) {
			pairs = append(pairs, [2]string{name, strings.Join(values, ", ")})
		}
	}
	var md metadata.MD
	for _, p := range pairs {
		if p[1] == "" && p[0] == strings.ToLower(p[0]) {
			continue // of this transport, and not there
		}
		with, err := md.Set(p[0], p[1])
		if err == nil {
			md = with
			continue
		}
		if len(p[0]) > metadata.MaxKey || len(p[1]) > metadata.MaxValue || md.Len() >= metadata.MaxPairs ||
			len(md)+len(p[0])+len(p[1])+3 > metadata.MaxSize {
			return status.Wrap(err, status.HeaderTooLarge, "%s", err)
		}
		return status.Wrap(err, status.InvalidArgument, "header %.100q: %s", p[0], err)
	}
	return status.New(status.InvalidArgument, "the headers are no metadata")
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
func (hd *head) mediaType() (string, *status.Error) {
	raw := hd.values[fieldType]
	if raw == "" && hd.goMicro() {
		raw = "application/protobuf" // as their servers have it; no web page sends a header of theirs unasked
	}
	if raw == "" {
		return "", status.New(status.UnsupportedMedia, "a call needs a Content-Type, such as application/json")
	}
	if v := hd.values[fieldEncoding]; v != "" && v != "identity" {
		return "", status.New(status.UnsupportedMedia, "Content-Encoding %.100q is not taken: send the body as it is", v)
	}
	if raw == "application/json" || raw == "application/protobuf" {
		return raw, nil // there is nothing to take apart
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
func (hd *head) timeout() (time.Duration, *status.Error) {
	var d time.Duration
	if v := hd.values[fieldTimeout]; v != "" {
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			return 0, status.New(status.InvalidArgument, "%s: %.100q is no duration, such as 1.5s", headerTimeout, v)
		}
	} else if v := hd.values[fieldNanos]; v != "" {
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

// endpoint gives what a request calls. The path is "/", or "/" and the endpoint, in one spelling only: there is nothing
// to decode, and so nothing that two parsers could read differently. Empty is a request that names a topic, or whose body may
// name an endpoint.
func (hd *head) endpoint(r *http.Request) (string, *status.Error) {
	header := hd.first(fieldEndpoint, fieldOldEndpoint, fieldMethod, fieldOldMethod)
	if header != "" && !validEndpoint(header) {
		return "", status.New(status.InvalidArgument, "endpoint %.100q: want letters, digits, '.', '_' and '-'", header)
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return "", status.New(status.InvalidArgument, "a call takes no query: what it says goes into the body")
	}
	path := r.URL.EscapedPath()
	switch {
	case path == "/":
		return header, nil
	case len(path) < 2 || path[0] != '/' || !validEndpoint(path[1:]):
		if header != "" { // go-micro does not look at the path, but somebody on the way may have let the call through by it
			return "", status.New(status.NotFound, "path %.100q is not that of endpoint %s: want / or /%s", path, header, header)
		}
		return "", status.New(status.NotFound, "path %.100q names no endpoint: want one such as /Say.Hello", path)
	case header != "" && header != path[1:]:
		return "", status.New(status.InvalidArgument, "the path names endpoint %.100q and the header %.100q: want / or /%s", path[1:], header, header)
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
