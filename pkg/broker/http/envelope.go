package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/textproto"
	"strings"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// Keys in the Header of an envelope, as go-micro spells them: its readers look them up by case.
const (
	keyTopic       = "Micro-Topic"
	keyID          = "Micro-ID"
	keyContentType = "Content-Type"
)

// The same as metadata keys, and the one under which go-micro v1 sends the topic.
const (
	mdTopic       = "micro-topic"
	mdID          = "micro-id"
	mdContentType = "content-type"
	mdTopicV1     = ":topic"
)

// defaultContentType stands where the publisher named none: go-micro's servers take a message without one for protobuf.
const defaultContentType = "application/octet-stream"

// envelope is the JSON that carries a message in the body of a POST. Body is base64 (RFC 4648 section 4).
type envelope struct {
	Header map[string]string
	Body   []byte
}

// encode gives m's envelope. m was checked.
func encode(m *broker.Message, id string) ([]byte, error) {
	e := envelope{Header: make(map[string]string, m.Header.Len()+3), Body: m.Body}
	if e.Body == nil {
		e.Body = []byte{} // null is none to readers in other languages
	}
	e.Header[keyContentType] = defaultContentType
	for key, value := range m.Header.All() {
		if key != mdContentType || value != "" {
			e.Header[textproto.CanonicalMIMEHeaderKey(key)] = value
		}
	}
	e.Header[keyTopic], e.Header[keyID] = m.Topic, id
	return json.Marshal(e)
}

// envelopeLimit is how long the envelope of a message with a body of limit bytes may be: base64, and metadata at its
// largest with each byte escaped.
func envelopeLimit(limit int) int64 {
	const header = 6*metadata.MaxSize + 8<<10
	return int64(limit)/3*4 + 4 + header
}

// decode reads an envelope strictly: a key of it or of its header stands once. Members beside Header and Body are
// skipped. Header keys that differ in case alone are the same key, of which the last counts.
func decode(data []byte) (*broker.Message, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	m, seen := &broker.Message{Body: []byte{}}, map[string]bool{}
	err := object(dec, func(key string) error {
		if seen[key] {
			return fmt.Errorf("%q stands twice", key)
		}
		switch key {
		case "Header":
			seen[key] = true
			return decodeHeader(dec, m)
		case "Body":
			seen[key] = true
			var body []byte
			if err := dec.Decode(&body); err != nil {
				return fmt.Errorf("member Body: %w", err)
			}
			if body != nil {
				m.Body = body
			}
			return nil
		}
		var skipped json.RawMessage
		return dec.Decode(&skipped)
	})
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the object")
	}
	return m, nil
}

// decodeHeader reads the Header member: strings by key, or null.
func decodeHeader(dec *json.Decoder, m *broker.Message) error {
	seen := map[string]bool{}
	var topicV1 string
	err := object(dec, func(key string) error {
		if seen[key] {
			return fmt.Errorf("header %q stands twice", key)
		}
		if len(seen) > 2*metadata.MaxPairs {
			return fmt.Errorf("more than %d headers", 2*metadata.MaxPairs)
		}
		seen[key] = true
		var value string
		if err := dec.Decode(&value); err != nil {
			return fmt.Errorf("header %q: %w", key, err)
		}
		var err error
		switch lower := strings.ToLower(key); lower {
		case mdTopicV1:
			topicV1 = value
		case mdTopic:
			m.Topic = value
		case mdID:
			m.ID = value
		default:
			m.Header, err = m.Header.Set(lower, value)
		}
		return err
	})
	if m.Topic == "" {
		m.Topic = topicV1
	}
	return err
}

// object reads a JSON object, or null, and calls member at the value of each key.
func object(dec *json.Decoder, member func(key string) error) error {
	token, err := dec.Token()
	if err != nil || token == nil {
		return err
	}
	if token != json.Delim('{') {
		return fmt.Errorf("want an object, not %v", token)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		if err := member(key.(string)); err != nil { // a key's token is always a string
			return err
		}
	}
	_, err = dec.Token()
	return err
}
