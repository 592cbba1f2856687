package envelope

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/textproto"
	"strings"
	"unicode/utf8"

	"github.com/cb02dfca/micro/pkg/broker"
)

// Most envelopes are written by a few programs in one form, without blanks and with little to escape. These read and write that form
// without a decoder's tokens; what is otherwise is left to encoding/json.

// appendString appends a JSON string.
func appendString(dst []byte, s string) []byte {
	if !plain(s) {
		text, err := json.Marshal(s)
		if err != nil { // never, of a string
			text = []byte(`""`)
		}
		return append(dst, text...)
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// plain reports whether s stands in JSON as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendEnvelope appends m's envelope.
func appendEnvelope(dst []byte, m *broker.Message, id string) []byte {
	dst = append(dst, `{"Header":{"`+keyContentType+`":`...)
	contentType := m.Header.Get(mdContentType)
	if contentType == "" {
		contentType = defaultContentType
	}
	dst = appendString(dst, contentType)
	for key, value := range m.Header.All() {
		if key == mdContentType {
			continue
		}
		dst = appendString(append(dst, ','), textproto.CanonicalMIMEHeaderKey(key))
		dst = appendString(append(dst, ':'), value)
	}
	dst = appendString(append(dst, `,"`+keyID+`":`...), id)
	dst = appendString(append(dst, `,"`+keyTopic+`":`...), m.Topic)
	dst = append(dst, `},"Body":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, m.Body)
	return append(dst, `"}`...)
}

// scanner reads the usual form. Once it has met another it is not ok.
type scanner struct {
	data []byte
	ok   bool
}

// next passes text over.
func (s *scanner) next(text string) {
	rest, found := bytes.CutPrefix(s.data, []byte(text))
	s.data, s.ok = rest, s.ok && found
}

// text reads a string that has nothing to unescape, behind its first quotation mark.
func (s *scanner) text() []byte {
	end := bytes.IndexByte(s.data, '"')
	if !s.ok || end < 0 {
		s.ok = false
		return nil
	}
	t := s.data[:end]
	s.data = s.data[end+1:]
	for _, c := range t {
		s.ok = s.ok && c >= ' ' && c != '\\'
	}
	s.ok = s.ok && utf8.Valid(t)
	return t
}

// decodeFast is Decode for the usual form; nil is for all others.
func decodeFast(data []byte) *broker.Message {
	m := &broker.Message{}
	s := &scanner{data, true}
	var seen [8]string // as the keys are spelled
	n := 0
	for s.next(`{"Header":{"`); s.ok; s.next(`,"`) {
		key := string(s.text())
		s.next(`:"`)
		value := string(s.text())
		lower := strings.ToLower(key)
		if !s.ok || n == len(seen) || lower == mdTopicV1 {
			return nil
		}
		for _, k := range seen[:n] {
			if k == lower {
				return nil
			}
		}
		seen[n] = lower
		n++
		switch lower {
		case mdTopic:
			m.Topic = value
		case mdID:
			m.ID = value
		default:
			var err error
			if m.Header, err = m.Header.Set(lower, value); err != nil {
				return nil
			}
		}
		if len(s.data) > 0 && s.data[0] == '}' {
			break
		}
	}
	s.next(`},"Body":"`)
	body := s.text()
	if s.next(`}`); !s.ok || len(s.data) > 0 {
		return nil
	}
	var err error
	if m.Body, err = base64.StdEncoding.AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(body))), body); err != nil {
		return nil
	}
	return m
}
