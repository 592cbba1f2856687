package websocket

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// contentJSON is what a body is encoded in that stands in the message as it is.
const contentJSON = "application/json"

// text is the JSON form of a message, for web pages.
type text struct {
	Kind     string            `json:"kind"`
	ID       uint32            `json:"id,omitempty"`
	Service  string            `json:"service,omitempty"`
	Endpoint string            `json:"endpoint,omitempty"`
	Timeout  float64           `json:"timeout,omitempty"` // milliseconds
	Metadata map[string]string `json:"metadata,omitempty"`
	Type     string            `json:"type,omitempty"` // of the body; absent is JSON
	Body     json.RawMessage   `json:"body,omitempty"`
	Base64   *string           `json:"base64,omitempty"` // a body that is no JSON
	Error    json.RawMessage   `json:"error,omitempty"`
}

// textLimit is the size of a JSON message whose body has limit bytes: each byte may be escaped as two, or be base64.
func textLimit(limit int) int64 { return 2*int64(limit) + 4*metadata.MaxSize }

// appendText appends the JSON form of m, a message of a server.
func appendText(dst []byte, m *transport.Message) ([]byte, error) {
	t := text{Kind: m.Kind.String(), ID: m.ID}
	var contentType string
	for key, value := range m.Header.Pairs() {
		switch {
		case string(key) == transport.HeaderError:
			t.Error = status.Parse(string(value)).AppendJSON(nil)
		case string(key) == transport.HeaderContentType:
			contentType = string(value)
		case !transport.Reserved(string(key)):
			if t.Metadata == nil {
				t.Metadata = make(map[string]string)
			}
			t.Metadata[string(key)] = string(value)
		}
	}
	switch {
	case len(m.Body) == 0:
	case isJSON(contentType) && json.Valid(m.Body) && utf8.Valid(m.Body):
		t.Body = m.Body
	default:
		encoded := base64.StdEncoding.EncodeToString(m.Body)
		t.Base64 = &encoded
	}
	if contentType != contentJSON {
		t.Type = contentType
	}
	b := bytes.NewBuffer(dst)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false) // it is no HTML, and a body is to arrive as it was
	if err := enc.Encode(&t); err != nil {
		return dst, fmt.Errorf("%w: a %s cannot be written as JSON: %w", transport.ErrNotSent, m.Kind, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func isJSON(contentType string) bool {
	return contentType == contentJSON || contentType == "" || strings.HasSuffix(contentType, "+json")
}

// textKinds are what a page may send.
var textKinds = []transport.Kind{transport.Call, transport.Open, transport.Data, transport.End, transport.Cancel, transport.Ping}

// readText reads a page's message from r into m's storage. The error wraps transport.ErrProtocol where it is no message, and
// transport.ErrTooLarge where its body is over the limit; it is a *status.Error where it is one that cannot be: m then has its
// Kind and ID.
func readText(r io.Reader, m *transport.Message, limit int) error {
	m.Reset()
	data, err := io.ReadAll(io.LimitReader(r, textLimit(limit)+1))
	switch {
	case err != nil:
		return err
	case int64(len(data)) > textLimit(limit):
		return errTooMuch
	case !utf8.Valid(data):
		return fmt.Errorf("%w: a text that is no UTF-8", transport.ErrProtocol)
	}
	var t text
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // a field that does nothing is a mistake of its sender
	if err := dec.Decode(&t); err != nil {
		return fmt.Errorf("%w: not a JSON message: %w", transport.ErrProtocol, plain(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than one JSON object in a message", transport.ErrProtocol)
	}
	at := slices.IndexFunc(textKinds, func(k transport.Kind) bool { return k.String() == t.Kind })
	if at < 0 {
		return fmt.Errorf("%w: kind %.40q: want call, open, data, end, cancel or ping", transport.ErrProtocol, t.Kind)
	}
	m.Kind, m.ID = textKinds[at], t.ID
	if err := t.header(m); err != nil {
		return err
	}
	if m.Body, err = t.body(m.Body, limit); err != nil {
		return err
	}
	return nil
}

var errTooMuch = fmt.Errorf("%w: JSON that is too long for any message", transport.ErrProtocol)

// plain is an error of package json without the package's name.
func plain(err error) error { return errors.New(strings.TrimPrefix(err.Error(), "json: ")) }

// header fills m's Header and Timeout. The error is a *status.Error.
func (t *text) header(m *transport.Message) error {
	if t.Timeout < 0 || math.IsNaN(t.Timeout) || t.Timeout > float64(math.MaxInt64/int64(time.Millisecond)) {
		return status.New(status.InvalidArgument, "timeout %v: want milliseconds, above 0", t.Timeout)
	}
	if len(t.Error) > 0 {
		return status.New(status.InvalidArgument, "an error is the server's to send")
	}
	m.Timeout = time.Duration(t.Timeout * float64(time.Millisecond))
	pairs := [][2]string{{transport.HeaderService, t.Service}, {transport.HeaderEndpoint, t.Endpoint}}
	if m.Kind == transport.Call || m.Kind == transport.Open {
		pairs = append(pairs, [2]string{transport.HeaderContentType, or(t.Type, contentJSON)})
	}
	md := m.Header
	for key, value := range t.Metadata {
		if transport.Reserved(key) {
			return status.New(status.InvalidArgument, "metadata %.40q is the framework's", key)
		}
		pairs = append(pairs, [2]string{key, value})
	}
	for _, p := range pairs {
		if p[1] == "" && (p[0] == transport.HeaderService || p[0] == transport.HeaderEndpoint) {
			continue
		}
		var err error
		if md, err = md.Set(p[0], p[1]); err != nil {
			return status.Wrap(err, status.InvalidArgument, "%.60q: %s", p[0], err)
		}
	}
	m.Header = md
	return nil
}

func or(s, standard string) string {
	if s == "" {
		return standard
	}
	return s
}

// body appends the body to dst.
func (t *text) body(dst []byte, limit int) ([]byte, error) {
	switch {
	case t.Base64 != nil && t.Body != nil:
		return dst, status.New(status.InvalidArgument, "a message has a body or base64, not both")
	case t.Base64 != nil:
		b, err := base64.StdEncoding.AppendDecode(dst, []byte(*t.Base64))
		if err != nil {
			return dst, status.Wrap(err, status.InvalidArgument, "base64: %s", err)
		}
		dst = b
	default:
		dst = append(dst, t.Body...)
	}
	if len(dst) > limit {
		return dst[:0], fmt.Errorf("%w: a body of %d bytes, limit %d", transport.ErrTooLarge, len(dst), limit)
	}
	return dst, nil
}
