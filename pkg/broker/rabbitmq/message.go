package rabbitmq

import (
	"fmt"
	"net/textproto"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// Headers, as go-micro spells them: its readers look them up by case.
const (
	keyTopic       = "Micro-Topic"
	keyID          = "Micro-ID"
	keyContentType = "Content-Type"
	keyTries       = "x-micro-tries" // deliveries that failed, of a message that was published again
)

// The same as metadata keys.
const (
	mdTopic       = "micro-topic"
	mdID          = "micro-id"
	mdContentType = "content-type"
)

const maxShort = 255 // bytes of a short string of AMQP, which properties are

// publishing is a message on its way to RabbitMQ.
type publishing struct {
	exchange, key string
	amqp.Publishing
}

// encodeAll gives messages that were checked, in storage of their own.
func encodeAll(exchange string, ms []*broker.Message, ids []string) []publishing {
	size := 0
	for _, m := range ms {
		size += len(m.Body)
	}
	bodies := make([]byte, 0, size)
	all := make([]publishing, len(ms))
	now := time.Now()
	for i, m := range ms {
		from := len(bodies)
		bodies = append(bodies, m.Body...)
		all[i] = encode(exchange, m, ids[i], bodies[from:len(bodies):len(bodies)], now)
	}
	return all
}

func encode(exchange string, m *broker.Message, id string, body []byte, now time.Time) publishing {
	headers := make(amqp.Table, m.Header.Len()+2)
	contentType := ""
	for key, value := range m.Header.All() {
		headers[textproto.CanonicalMIMEHeaderKey(key)] = value
		if key == mdContentType && len(value) <= maxShort {
			contentType = value
		}
	}
	headers[keyTopic], headers[keyID] = m.Topic, id
	if len(id) > maxShort {
		id = ""
	}
	return publishing{exchange, m.Topic, amqp.Publishing{
		Headers: headers, ContentType: contentType, DeliveryMode: amqp.Persistent, MessageId: id, Timestamp: now, Body: body,
	}}
}

// decode gives the message that a delivery to a subscriber of topic brings, and how many deliveries of it have failed. Headers
// that are no metadata are left out.
func decode(topic string, d *amqp.Delivery) (*broker.Message, int) {
	m := &broker.Message{Topic: topic, ID: d.MessageId, Body: d.Body}
	var header metadata.Builder
	tries := 0
	for key, v := range d.Headers {
		switch lower := strings.ToLower(key); {
		case lower == keyTries:
			tries = int(number(v))
		case lower == mdID:
			if s, ok := v.(string); ok && m.ID == "" {
				m.ID = s
			}
		case lower == mdTopic, servers(lower):
		default:
			if s, ok := text(v); ok {
				_ = header.Set(lower, s)
			}
		}
	}
	m.Header = header.MD()
	if _, ok := m.Header.Bytes(mdContentType); !ok && d.ContentType != "" {
		if md, err := m.Header.Set(mdContentType, d.ContentType); err == nil {
			m.Header = md
		}
	}
	return m, tries
}

// servers reports whether a header is RabbitMQ's own, of what a message has been through.
func servers(key string) bool {
	return key == "x-delivery-count" || key == "x-acquired-count" || strings.HasPrefix(key, "x-death") ||
		strings.HasPrefix(key, "x-first-death-") || strings.HasPrefix(key, "x-last-death-")
}

// text gives a header's value as text, where it is one that has such a form.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	case bool, int, int8, int16, int32, int64, uint8, uint16, uint32, float32, float64:
		return fmt.Sprint(v), true
	case time.Time:
		return v.UTC().Format(time.RFC3339), true
	}
	return "", false
}

// number gives a header's value as a number, 0 for what is none.
func number(v any) int64 {
	switch v := v.(type) {
	case int:
		return int64(v)
	case int32:
		return int64(v)
	case int64:
		return v
	}
	return 0
}

// again gives a message that is put into its queue once more, after tries deliveries that failed.
func again(queue string, d *amqp.Delivery, tries int) publishing {
	headers := make(amqp.Table, len(d.Headers)+1)
	for key, v := range d.Headers {
		if !servers(key) {
			headers[key] = v
		}
	}
	headers[keyTries] = int32(tries)
	return publishing{"", queue, amqp.Publishing{
		Headers: headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: amqp.Persistent, Priority: d.Priority,
		CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, MessageId: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId, Body: d.Body,
	}}
}
