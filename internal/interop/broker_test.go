package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// inboxes are what subscribers of both sides got, an event for each message.
type inboxes struct {
	theirs []<-chan string
	ours   []<-chan heard
}

// count gives how many messages each has got when a moment has passed without one.
func (in inboxes) count(t *testing.T, want int) (theirs, ours int) {
	t.Helper()
	for end := time.Now().Add(wait); ; {
		before := theirs + ours
		for _, c := range in.theirs {
			theirs += len(drained(c))
		}
		for _, c := range in.ours {
			ours += len(drained(c))
		}
		switch quiet := theirs+ours == before; {
		case quiet && theirs+ours >= want, time.Now().After(end):
			return theirs, ours
		}
		time.Sleep(150 * time.Millisecond)
	}
}

func drained[T any](c <-chan T) (all []T) {
	for {
		select {
		case one := <-c:
			all = append(all, one)
		default:
			return all
		}
	}
}

// subscriber runs a service of go-micro with a subscriber, and gives what it gets.
func (p *peer) subscriber(t *testing.T, name, topic, queue string) <-chan string {
	t.Helper()
	s := testserver.GoMicroOf(t, p.version, "serve", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0", "-address", "127.0.0.1:0", "-topic", topic, "-queue", queue, name)
	return s.Told("event")
}

// TestQueues: a queue has members of both sides, each message goes to one of them, and to each subscriber that is in no queue. So it is
// for our publisher and for theirs.
func TestQueues(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			const topic, messages = "shop.orders", 20
			p := &peer{name: p.name, version: p.version, protocol: p.protocol}
			member, other := serve(t, "member", map[string]string{topic: "mail"}), serve(t, "other", map[string]string{topic: ""})
			queue := inboxes{[]<-chan string{p.subscriber(t, "their-member", topic, "mail"), p.subscriber(t, "their-second", topic, "mail")}, []<-chan heard{member.heard}}
			all := inboxes{[]<-chan string{p.subscriber(t, "their-other", topic, "")}, []<-chan heard{other.heard}}
			p.client = testserver.GoMicroOf(t, p.version, "client", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0")
			for _, publish := range []func() error{
				func() error {
					report, err := member.Client().Publish(t.Context(), topic, &Request{Name: "ours"})
					if err == nil && len(report.Deliveries) != 3 {
						err = fmt.Errorf("%+v", report)
					}
					return err
				},
				func() error {
					a, err := p.do("publish " + topic + ` {"name":"theirs"}`)
					if err == nil && a.Error != nil {
						err = fmt.Errorf("%s", a.Error)
					}
					return err
				},
			} {
				publishes(t, messages, publish)
				theirs, ours := queue.count(t, messages)
				if theirs+ours != messages || theirs == 0 || ours == 0 {
					t.Errorf("of %d messages the queue's members got %d of theirs and %d of ours", messages, theirs, ours)
				}
				if theirs, ours := all.count(t, 2*messages); theirs != messages || ours != messages {
					t.Errorf("of %d messages the others got %d of theirs and %d of ours", messages, theirs, ours)
				}
			}
		})
	}
}

// publishes publishes messages, once all subscribers are found: go-micro's publisher asks for them once, and then keeps what it has for a
// minute, so that the first message comes late enough.
func publishes(t *testing.T, messages int, publish func() error) {
	t.Helper()
	for range messages {
		must(t, publish())
		time.Sleep(10 * time.Millisecond)
	}
}

// TestRawMessages: what a broker alone publishes and gets, with a header and a body of any form.
func TestRawMessages(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	o := serve(t, "ours", nil)
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			p := &peer{name: p.name, version: p.version, protocol: p.protocol}
			got := make(chan *broker.Message, 10)
			sub, err := o.Broker().Subscribe(t.Context(), p.of("to-ours"), func(_ context.Context, m *broker.Message) error { got <- m; return nil })
			must(t, err)
			defer func() { _ = sub.Close() }()
			p.client = testserver.GoMicroOf(t, p.version, "client", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0", "-type", "text/plain", "-meta", "Trace=theirs")
			_, err = p.do("subscribe " + p.of("to-theirs"))
			must(t, err)
			registrytest.Eventually(t, "its subscriber is found", func() bool {
				report, err := o.Broker().Publish(t.Context(), &broker.Message{
					Topic: p.of("to-theirs"), Header: metadata.Of("content-type", "text/plain", "trace", "ours"), Body: []byte("\x00ü"),
				})
				must(t, err)
				return report.Delivered() == 1
			})
			select {
			case text := <-p.client.Told("event"):
				var m struct {
					Topic, Body string
					Header      map[string]string
				}
				must(t, json.Unmarshal([]byte(text), &m))
				if m.Topic != p.of("to-theirs") || m.Body != "\x00ü" || m.Header["Trace"] != "ours" || m.Header["Content-Type"] != "text/plain" {
					t.Errorf("its subscriber got %+v", m)
				}
			case <-time.After(wait):
				t.Error("its subscriber got nothing")
			}
			a, err := p.do("raw " + p.of("to-ours") + " hé")
			if err != nil || a.Error != nil {
				t.Fatalf("it says %s, %v", a.Error, err)
			}
			select {
			case m := <-got:
				if m.Topic != p.of("to-ours") || string(m.Body) != "hé" || m.Header.Get("trace") != "theirs" || m.Header.Get("content-type") != "text/plain" {
					t.Errorf("our subscriber got %+v", m)
				}
			case <-time.After(wait):
				t.Error("our subscriber got nothing")
			}
		})
	}
}
