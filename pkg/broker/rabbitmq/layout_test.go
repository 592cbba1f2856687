package rabbitmq_test

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// raw gives a channel of the client library's own, as a peer of another make has it.
func raw(t testing.TB, addr string) *amqp.Channel {
	t.Helper()
	c, err := amqp.Dial("amqp://guest:guest@" + addr + "/")
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	ch, err := c.Channel()
	must(t, err)
	return ch
}

// A peer that uses RabbitMQ as go-micro does, with an exchange that is not durable, gets our messages, and we get its.
func TestLayout(t *testing.T) {
	t.Parallel()
	o := own(t, servers.Addr(t))
	said := &brokertest.Journal{}
	o.Logger = said.Logger()
	ch := raw(t, o.Addrs[0])
	must(t, ch.ExchangeDeclare(o.Exchange, "topic", false, false, false, false, nil))
	_, err := ch.QueueDeclare(o.Exchange+".peer", false, true, false, false, nil)
	must(t, err)
	theirs, err := ch.Consume(o.Exchange+".peer", "", true, false, false, false, nil)
	must(t, err)
	must(t, ch.QueueBind(o.Exchange+".peer", "greeter.events", o.Exchange, false, nil))

	b, in := open(t, o), newInbox()
	_, err = b.Subscribe(t.Context(), "greeter.events", in.handle)
	must(t, err)
	report, err := b.Publish(t.Context(), &broker.Message{Topic: "greeter.events", Header: metadata.Of("content-type", "application/json", "user-id", "7"), Body: []byte(`{"a":1}`)})
	must(t, err)
	select {
	case d := <-theirs:
		for key, want := range map[string]any{"Content-Type": "application/json", "Micro-Topic": "greeter.events", "Micro-ID": report.ID, "User-Id": "7"} {
			if d.Headers[key] != want {
				t.Errorf("header %s is %v, want %v", key, d.Headers[key], want)
			}
		}
		if string(d.Body) != `{"a":1}` || d.RoutingKey != "greeter.events" || d.DeliveryMode != amqp.Persistent || d.ContentType != "application/json" || d.MessageId != report.ID {
			t.Errorf("the delivery is %+v", d)
		}
	case <-time.After(wait):
		t.Fatal("the peer got nothing")
	}
	in.wait(t, 1)

	must(t, ch.Publish(o.Exchange, "greeter.events", false, false, amqp.Publishing{
		Headers: amqp.Table{"Content-Type": "application/protobuf", "Micro-Topic": "greeter.events", "Micro-Id": "their-id", "bad key": "x", "Count": int32(3), "x-mine": "kept"},
		Body:    []byte{8, 1},
	}))
	m := in.wait(t, 2)[1]
	if m.ID != "their-id" || m.Topic != "greeter.events" || string(m.Body) != "\x08\x01" || m.Header.Len() != 3 ||
		m.Header.Get("content-type") != "application/protobuf" || m.Header.Get("count") != "3" || m.Header.Get("x-mine") != "kept" {
		t.Errorf("the peer's message came as %+v with %v", m, m.Header)
	}
	must(t, ch.Publish(o.Exchange, "greeter.events", false, false, amqp.Publishing{ContentType: "text/plain", MessageId: "m", Body: []byte("bare")}))
	if m := in.wait(t, 3)[2]; m.ID != "m" || m.Header.Get("content-type") != "text/plain" {
		t.Errorf("a message without headers came as %+v with %v", m, m.Header)
	}
}
