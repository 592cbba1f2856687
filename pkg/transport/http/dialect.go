package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// protocolMucp is go-micro's name for what its HTTP transport speaks, which nodes have in their records (registry.MetaProtocol).
const protocolMucp = "mucp"

// Speaks implements transport.Polyglot: "mucp://host:port" is a node of go-micro, which is not asked for the upgrade.
func (t *Transport) Speaks(protocol string) bool { return protocol == protocolMucp }

// mucpTypes are the content types that go-micro's servers know, by these very names. One that it does not know is answered
// like a success; see told.
var mucpTypes = []string{
	"application/json", "application/protobuf", "application/octet-stream", "application/json-rpc", "application/proto-rpc",
}

// speaks refuses a message whose content type the peer is known not to have.
func (c *plainConn) speaks(m *transport.Message) error {
	contentType := mediaTypeOf(m.Header.Get(transport.HeaderContentType))
	if !c.foreign || contentType == "" || slices.Contains(mucpTypes, contentType) {
		return nil
	}
	return fmt.Errorf("%w: %s is a service of go-micro, which takes no content type %.100q: want one of %s: %w",
		transport.ErrNotSent, c.addr, contentType, strings.Join(mucpTypes, ", "), errors.ErrUnsupported)
}

// mediaTypeOf gives a content type without its parameters, as go-micro compares it.
func mediaTypeOf(contentType string) string {
	contentType, _, _ = strings.Cut(contentType, ";")
	return strings.TrimSpace(contentType)
}

// What a peer is by its answers.
const (
	unknownPeer    = iota // it has not answered, or is none of go-micro's
	numberedPeer          // go-micro that tells requests on a connection apart by Micro-Id: v1 to v3
	unnumberedPeer        // go-micro that may not: from v4 on
)

// learn takes notice of what go-micro's answer tells of its version. From v4 on it looks for the id of a request under a name that no
// header has, and so has all requests of a connection take turns in one slot. It frees that after it has written the answer: a
// request that comes in between is lost. The number of a stream, which it does find, keeps requests apart, and means nothing
// else to an endpoint that has no stream. Those that tell Micro-Id repeat it as X-Micro-Id, but in errors; others do so where it stood in
// the body.
func (c *plainConn) learn(answer *http.Response) {
	rpc := strings.HasSuffix(mediaTypeOf(get(answer.Header, "Content-Type")), "-rpc")
	switch {
	case !echoes(answer):
	case rpc, get(answer.Header, headerError) != "":
		c.numbers.CompareAndSwap(unknownPeer, unnumberedPeer)
	case get(answer.Header, headerOldID) != "":
		c.numbers.Store(numberedPeer)
	default:
		c.numbers.Store(unnumberedPeer)
	}
}

// told gives the error that an answer tells, as text that status.Parse reads; "" for a success. An error says that the answer
// is no service's.
func told(answer *http.Response, body []byte) (string, error) {
	text := bytes.TrimSpace(body)
	failed := first(answer.Header, headerError, "X-Micro-Error")
	switch {
	case failed != "":
		return failed, nil
	case answer.StatusCode == http.StatusOK && !unsupported(answer, text):
		return "", nil
	case answer.StatusCode == http.StatusOK:
		return asText(status.Refuse(status.UnsupportedMedia, "%.1000s", text)), nil
	case isObject(text, answer.StatusCode):
		return string(text), nil
	case answer.StatusCode == http.StatusInternalServerError && len(text) > 0:
		return asText(status.New(status.Internal, "%.1000s", text)), nil
	}
	return "", stranger(answer)
}

// unsupported reports whether an answer with status 200 is go-micro's to a content type that it does not know.
func unsupported(answer *http.Response, text []byte) bool {
	return mediaTypeOf(get(answer.Header, "Content-Type")) == "text/plain" && bytes.HasPrefix(text, []byte("unsupported Content-Type"))
}

// isObject reports whether text is an error's JSON with the code of the answer's status.
func isObject(text []byte, code int) bool {
	var object struct{ Code int }
	return json.Unmarshal(text, &object) == nil && object.Code == code
}

func asText(e *status.Error) string { return string(e.AppendJSON(nil)) }

// echoes reports whether the answer repeats the headers of its connection's first request, as go-micro's do: the name of a
// client's program is among them. Nothing in such headers is the service's own, and that request may have been another
// caller's.
func echoes(answer *http.Response) bool { return get(answer.Header, "User-Agent") != "" }

// stranger is the error of an answer that no service gives. One that says that the request itself was of no use says also
// that no service has run the call: another program has the port by now. Any other may be of a proxy before a service.
func stranger(answer *http.Response) error {
	err := fmt.Errorf("%w: the peer is no service: it answered %.60q", transport.ErrProtocol, answer.Status)
	switch answer.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect,
		http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusNotImplemented:
		refusal := status.Refuse(status.Misdirected, "another program has the port")
		refusal.Remote = true
		return fmt.Errorf("%w: %w", err, refusal)
	}
	return err
}

// clip makes the text of an error fit for a metadata value. An object that is too long keeps its code.
func clip(text string) string {
	text = oneLine(text)
	if len(text) <= metadata.MaxValue {
		return text
	}
	short := status.Parse(text).Within(metadata.MaxValue).AppendJSON(nil)
	if len(short) > metadata.MaxValue {
		return text[:metadata.MaxValue/2]
	}
	return string(short)
}
