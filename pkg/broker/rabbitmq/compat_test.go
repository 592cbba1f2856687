package rabbitmq_test

import (
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/rabbitmq"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// goMicro is a process of go-micro v5: see servers/gomicro.
type goMicro struct {
	*testserver.Peer
	t *testing.T
}

func (g goMicro) wants(answer, order string) {
	g.t.Helper()
	if got := g.Do(order); got != `"`+answer+`"` {
		g.t.Fatalf("%s: go-micro says %s", order, got)
	}
}

// got waits for a message, and gives it as JSON.
func (g goMicro) got() string {
	g.t.Helper()
	select {
	case text := <-g.Told("event"):
		return text
	case <-time.After(wait):
		g.t.Fatal("go-micro got no message")
		return ""
	}
}

// subscribed waits until go-micro has bound a queue to a topic, which it does by itself some time after Subscribe: a message that nobody gets
// is published until one is got.
func (g goMicro) subscribed(b *rabbitmq.Broker, topic string) {
	g.t.Helper()
	for deadline := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		report, err := b.Publish(g.t.Context(), &broker.Message{Topic: topic, Header: metadata.Of("content-type", "application/json"), Body: []byte(`{}`)})
		must(g.t, err)
		if report.Deliveries == nil { // somebody has it
			g.got()
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatal("go-micro does not bind its queue")
		}
	}
}

// TestGoMicroBroker: go-micro's own broker gets our messages, and we get its, whoever made the exchange, durable or not.
func TestGoMicroBroker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		durable   string
		oursFirst bool
	}{"theirs is not durable": {"false", false}, "theirs is durable": {"true", false}, "ours comes first": {"true", true}, "ours comes first, theirs is not durable": {"false", true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := own(t, servers.Addr(t))
			var b *rabbitmq.Broker
			if c.oursFirst {
				b = open(t, o)
				_, err := b.Publish(t.Context(), &broker.Message{Topic: "first"})
				must(t, err)
			}
			g := goMicro{testserver.GoMicro(t, "rabbitmq", "rabbitmq://"+o.Addrs[0]+"?exchange="+o.Exchange+"&durable="+c.durable), t}
			if b == nil {
				b = open(t, o)
			}
			const topic = "users/created.v1"
			g.wants("subscribed", "subscribe "+topic)
			g.subscribed(b, topic)
			report, err := b.Publish(t.Context(), &broker.Message{Topic: topic, Header: metadata.Of("content-type", "application/json", "user-id", "7", "x_odd", "ß"), Body: []byte(`{"a":"<&>"}`)})
			must(t, err)
			var m struct {
				Topic, Body string
				Header      map[string]string
			}
			must(t, json.Unmarshal([]byte(g.got()), &m))
			want := map[string]string{"Content-Type": "application/json", "User-Id": "7", "X_odd": "ß", "Micro-Topic": topic, "Micro-ID": report.ID}
			if m.Topic != topic || m.Body != `{"a":"<&>"}` || !maps.Equal(m.Header, want) {
				t.Errorf("go-micro got %+v, want the header %v", m, want)
			}

			in, all := newInbox(), newInbox()
			_, err = b.Subscribe(t.Context(), topic, in.handle)
			must(t, err)
			_, err = b.Subscribe(t.Context(), topic, all.handle, broker.Queue("billing"))
			must(t, err)
			g.wants("published", "publish "+topic+` {"header":{"Content-Type":"application/json","Trace-Id":"abc","Micro-Topic":"`+topic+`"},"body":"{\"n\":1}"}`)
			for _, box := range []*inbox{in, all} {
				m := box.wait(t, 1)[0]
				if m.Topic != topic || string(m.Body) != `{"n":1}` || m.Header.Get("trace-id") != "abc" || m.Header.Get("content-type") != "application/json" || m.Header.Len() != 2 {
					t.Errorf("we got %+v with %v", m, m.Header)
				}
			}
			g.got() // its own

			// A durable queue of its own keeps what comes while it is away.
			g.wants("subscribed", "subscribe kept "+o.Exchange+".theirs")
			g.subscribed(b, "kept")
			g.Kill()
			ch := raw(t, o.Addrs[0])
			for deadline := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) { // what comes until then it is sent, and has acknowledged beforehand
				q, err := ch.QueueDeclarePassive(o.Exchange+".theirs", true, false, false, false, nil)
				must(t, err)
				if q.Consumers == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("RabbitMQ does not see that go-micro was killed")
				}
			}
			_, err = b.Publish(t.Context(), &broker.Message{Topic: "kept", Body: []byte("while it was away")})
			must(t, err)
			g = goMicro{testserver.GoMicro(t, "rabbitmq", "rabbitmq://"+o.Addrs[0]+"?exchange="+o.Exchange+"&durable="+c.durable), t}
			g.wants("subscribed", "subscribe kept "+o.Exchange+".theirs")
			must(t, json.Unmarshal([]byte(g.got()), &m))
			if m.Body != "while it was away" {
				t.Errorf("go-micro got %+v", m)
			}
		})
	}
}

// TestGoMicroEvents: a subscriber of a go-micro service gets what we publish, decoded, and we what its client publishes.
func TestGoMicroEvents(t *testing.T) {
	t.Parallel()
	o := own(t, servers.Addr(t))
	b, in := open(t, o), newInbox()
	url := "rabbitmq://" + o.Addrs[0] + "?exchange=" + o.Exchange
	g := goMicro{testserver.GoMicro(t, "service", "memory:", "events", "users/created", url), t}
	g.subscribed(b, "users/created")
	_, err := b.Publish(t.Context(), &broker.Message{Topic: "users/created", Header: metadata.Of("content-type", "application/json", "trace", "ours"), Body: []byte(`{"name":"ann"}`)})
	must(t, err)
	var e struct {
		Name   string
		Header map[string]string
	}
	must(t, json.Unmarshal([]byte(g.got()), &e))
	if e.Name != "ann" || e.Header["Trace"] != "ours" || e.Header["Micro-Topic"] != "users/created" {
		t.Errorf("its subscriber got %+v", e)
	}
	_, err = b.Subscribe(t.Context(), "users/created", in.handle)
	must(t, err)
	client := goMicro{testserver.GoMicro(t, "client", "memory:", "application/json", url), t}
	client.wants("published", `publish users/created {"name":"bob"}`)
	m := in.wait(t, 1)[0]
	if string(m.Body) != `{"name":"bob"}` && string(m.Body) != `{"name":"bob"}`+"\n" || m.Header.Get("content-type") != "application/json" || m.Header.Get("greeting") != "Hi" || m.ID == "" {
		t.Errorf("we got %+v with %v", m, m.Header)
	}
	g.got()
}
