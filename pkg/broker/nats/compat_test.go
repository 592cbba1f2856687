package nats_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// goMicro is go-micro's own client, server and broker on NATS, in a process of their own.
type goMicro struct {
	*testserver.Peer
	t *testing.T
}

func startGoMicro(t *testing.T, addr, topic, queue string) *goMicro {
	t.Helper()
	return &goMicro{testserver.GoMicro(t, "broker", addr, topic, queue), t}
}

// message reads a message that a handler of go-micro got: one of its server, told after "event", or of its broker, after "raw".
func (g *goMicro) message(word string) (text string, header map[string]string) {
	g.t.Helper()
	var m struct {
		Text   string            `json:"text"`
		Header map[string]string `json:"header"`
	}
	select {
	case line := <-g.Told(word):
		must(g.t, json.Unmarshal([]byte(line), &m))
	case <-time.After(patience):
		g.t.Fatal("go-micro got no message")
	}
	return m.Text, m.Header
}

// do gives an order.
func (g *goMicro) do(order string) {
	g.t.Helper()
	if got := g.Do(order); got != `"published"` {
		g.t.Fatalf("%s: go-micro says %s", order, got)
	}
}

// TestMixedFleet: a subscriber of go-micro's server gets what is published here, and a subscriber here what go-micro's client publishes,
// by its own broker on NATS; members of one queue share the messages. With a stream too, which gets both.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	for name, stream := range map[string]string{"core": "", "stream": "fleet"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := account(t)
			o.Stream = stream
			login := o.Username + ":" + o.Password + "@"
			b, in := open(t, o), &inbox{}
			subscribe(t, b, "gm.notes", in.handle)
			g := startGoMicro(t, login+o.Servers[0], "gm.notes", "readers")

			m := &broker.Message{Topic: "gm.notes", ID: "ours-1", Header: metadata.Of("content-type", "application/json", "trace", "ours"), Body: []byte(`{"text":"from here"}`)}
			must(t, second(b.Publish(t.Context(), m)))
			text, header := g.message("event")
			if text != "from here" || header["Trace"] != "ours" || header["Micro-Topic"] != "gm.notes" {
				t.Errorf("its server's handler gets %q with %v", text, header)
			}
			if body, header := g.message("raw"); body != `{"text":"from here"}` || header["Content-Type"] != "application/json" || header["Micro-Topic"] != "gm.notes" || header["Micro-ID"] != "ours-1" {
				t.Errorf("its broker's handler gets %s with %v", body, header)
			}
			in.wait(t, 1)

			g.do("publish gm.notes from there")
			in.wait(t, 2)
			got := in.all()[1]
			if strings.TrimSpace(string(got.Body)) != `{"text":"from there"}` || got.Topic != "gm.notes" || got.ID == "" || got.Header.Get("content-type") != "application/json" || got.Header.Get("trace") != "theirs" {
				t.Errorf("from its client came %+v", got)
			}
			if text, header := g.message("event"); text != "from there" || header["Trace"] != "theirs" {
				t.Errorf("its own handler gets %q with %v", text, header)
			}
			g.do("raw gm.notes no more than bytes")
			in.wait(t, 3)
			if got := in.all()[2]; string(got.Body) != "no more than bytes" || got.ID != "" || got.Header.Get("trace") != "raw" {
				t.Errorf("from its broker alone came %+v", got)
			}
		})
	}
}

// TestMixedQueue: a member of go-micro and one here share the messages of a queue of core NATS.
func TestMixedQueue(t *testing.T) {
	t.Parallel()
	o := account(t)
	b, in := open(t, o), &inbox{}
	subscribe(t, b, "gm.jobs", in.handle, broker.Queue("workers"))
	g := startGoMicro(t, o.Username+":"+o.Password+"@"+o.Servers[0], "gm.jobs", "workers")
	const n = 60
	theirs := 0
	for i := range n {
		if i%2 == 0 {
			must(t, second(b.Publish(t.Context(), &broker.Message{Topic: "gm.jobs", Header: metadata.Of("content-type", "application/json"), Body: []byte(`{"text":"x"}`)})))
		} else {
			g.do("publish gm.jobs x")
		}
	}
	until(t, "each message comes", func() bool {
		for {
			select {
			case <-g.Told("event"):
				theirs++
			default:
				return theirs+len(in.all()) >= n
			}
		}
	})
	if ours := len(in.all()); ours+theirs != n || ours == 0 || theirs == 0 {
		t.Errorf("of %d messages %d came here, and %d to go-micro", n, ours, theirs)
	}
}
