// Package envelope is go-micro's form of a message, in which its HTTP broker posts it and its other brokers hand it to their servers:
//
//	{"Header":{"Content-Type":"application/json","Micro-ID":"...","Micro-Topic":"orders"},"Body":"<base64>"}
//
// Topic and id stand in the header, under keys of their own.
package envelope

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
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

// The same as metadata keys, and the one under which go-micro v1's HTTP broker sends the topic.
const (
	mdTopic       = "micro-topic"
	mdID          = "micro-id"
	mdContentType = "content-type"
	mdTopicV1     = ":topic"
)

// defaultContentType stands where the publisher named none: go-micro's servers take a message without one for protobuf.
const defaultContentType = "application/octet-stream"

// Encode gives m's envelope, with id in place of m's own. m was checked by broker.CheckMessage.
func Encode(m *broker.Message, id string) []byte {
	const around = 128 // of an envelope, besides what is counted
	size := base64.StdEncoding.EncodedLen(len(m.Body)) + len(m.Header) + 8*m.Header.Len() + len(m.Topic) + len(id) + around
	return appendEnvelope(make([]byte, 0, size), m, id)
}

// V1 gives an envelope the topic under the key that go-micro v1's HTTP broker looks it up by.
func V1(envelope []byte, topic string) []byte {
	const start = `{"Header":{`
	v1 := make([]byte, 0, len(envelope)+len(topic)+16)
	v1 = append(appendString(append(v1, start+`"`+mdTopicV1+`":`...), topic), ',')
	return append(v1, envelope[len(start):]...)
}

// Limit is how long the envelope of a message with a body of limit bytes may be: base64, and metadata at its
// largest with each byte escaped.
func Limit(limit int) int64 {
	const header = 6*metadata.MaxSize + 8<<10
	return int64(limit)/3*4 + 4 + header
}

// Decode reads an envelope strictly: a key of it or of its header stands once. Members beside Header and Body are
// skipped. Header keys that differ in case alone are the same key, of which the last counts.
func Decode(data []byte) (*broker.Message, error) {
	if m := decodeFast(data); m != nil {
		return m, nil
	}
	return decodeAny(data)
}

func decodeAny(data []byte) (*broker.Message, error) {
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
