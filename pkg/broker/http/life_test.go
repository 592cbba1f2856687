package http_test

import (
	"context"
	"errors"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/http"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

func ignore(context.Context, *broker.Message) error { return nil }

func TestNode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		topic, queue string
		id           string // before the random part
	}{
		{"greeter.events", "", "greeter.events"},
		{"a/b/c", "mail", "a-b-c"},
		{"a..b", "team/mail", "a.-b"},
		{"a....b", "", "a.-.-b"},
		{strings.Repeat("long-", 20), "", "long-long-long-long-long-l"},
		{"ends.with.a.dot.in.the.mid.", "", "ends.with.a.dot.in.the.mid"},
	}
	random := regexp.MustCompile(`^-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	for _, test := range tests {
		reg := newRegistry(t)
		b := newBroker(t, reg, http.Options{Metadata: map[string]string{"zone": "a", "topic": "no", "secure": "true"}})
		sub := subscribe(t, b, test.topic, ignore, broker.Queue(test.queue))
		n := onlyNode(t, reg)
		if rest, ok := strings.CutPrefix(n.ID, test.id); !ok || !random.MatchString(rest) || len(n.ID) > 63 {
			t.Errorf("id %q, want %s and a random part, 63 bytes at most", n.ID, test.id)
		}
		version := test.queue
		if version == "" {
			version = "ff.http.broadcast"
		}
		want := registry.Node{ID: n.ID, Service: "micro.http.broker", Version: version, Address: n.Address, Metadata: map[string]string{
			"broker": "http", "secure": "false", "topic": test.topic, "ack": "true", "frames": "true", "zone": "a", "started": n.Metadata["started"],
		}}
		if began, err := time.Parse(time.RFC3339, n.Metadata["started"]); err != nil || time.Since(began) > time.Minute {
			t.Errorf("started %q", n.Metadata["started"])
		}
		if !n.Equal(want) {
			t.Errorf("node %+v, want %+v", n, want)
		}
		if host, _, err := net.SplitHostPort(n.Address); err != nil || host != "127.0.0.1" {
			t.Errorf("address %q, want one of 127.0.0.1", n.Address)
		}
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
		if nodes, err := reg.Get(t.Context(), n.Service); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("after Close: %+v, %v", nodes, err)
		}
	}
}

// fixedPort is a Mux without sockets, for tests in which no network is wanted.
func fixedPort() *port { return &port{Server: &httptest.Server{Listener: fixedListener{}}} }

func TestRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := &faulty{Registry: memory.New(), again: make(chan struct{})}
		defer reg.Close()
		b, err := http.New(reg, http.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Attach(fixedPort()); err != nil {
			t.Fatal(err)
		}
		subscribe(t, b, "topic", ignore)
		for range 20 { // the record never lapses
			time.Sleep(30 * time.Second)
			if nodes, err := reg.Get(t.Context(), registry.BrokerService); err != nil || len(nodes) != 1 {
				t.Fatalf("%+v, %v", nodes, err)
			}
		}
		var pauses []time.Duration
		reg.set(func() {
			for i := range reg.times[1:] {
				pauses = append(pauses, reg.times[i+1].Sub(reg.times[i]))
			}
		})
		if n := len(pauses); n < 25 || n > 38 {
			t.Errorf("%d renewals in 10 minutes, want one about each 20 s", n)
		}
		seen := map[time.Duration]bool{}
		for _, p := range pauses {
			if seen[p] = true; p < 16*time.Second || p > 24*time.Second {
				t.Errorf("a pause of %v", p)
			}
		}
		if len(seen) < 3 {
			t.Errorf("the pauses have no jitter: %v", pauses)
		}
	})
}

func TestRenewalAfterFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logged syncBuffer
		reg := &faulty{Registry: memory.New(), again: make(chan struct{})}
		defer reg.Close()
		b, err := http.New(reg, http.Options{Logger: textLogger(&logged)})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Attach(fixedPort()); err != nil {
			t.Fatal(err)
		}
		subscribe(t, b, "topic", ignore)
		reg.set(func() { reg.refuse = errAway })
		time.Sleep(5 * time.Minute) // it lapses
		if _, err := reg.Get(t.Context(), registry.BrokerService); !errors.Is(err, registry.ErrNotFound) {
			t.Fatalf("error %v, want ErrNotFound", err)
		}
		reg.set(func() { reg.refuse = nil })
		time.Sleep(25 * time.Second)
		if nodes, err := reg.Get(t.Context(), registry.BrokerService); err != nil || len(nodes) != 1 {
			t.Errorf("%+v, %v, want it back", nodes, err)
		}
		if log := logged.String(); strings.Count(log, "cannot be renewed") != 1 || strings.Count(log, "registered again") != 1 {
			t.Errorf("log, want one line each of the failure and its end:\n%s", log)
		}
	})
}

func TestSubscribeRefusedByRegistry(t *testing.T) {
	t.Parallel()
	reg := newFaulty(t)
	b := newBroker(t, reg, http.Options{})
	for _, test := range []struct{ refuse, want error }{
		{errAway, broker.ErrUnavailable},
		{registry.ErrInvalid, broker.ErrInvalid},
		{registry.ErrClosed, broker.ErrUnavailable},
	} {
		reg.set(func() { reg.refuse = test.refuse })
		if _, err := b.Subscribe(t.Context(), "topic", ignore); !errors.Is(err, test.want) || !errors.Is(err, test.refuse) {
			t.Errorf("error %v, want %v", err, test.want)
		}
	}
	reg.set(func() { reg.refuse = nil })
	subscribe(t, b, "topic", ignore)
	if r := publish(t, b, "topic", "x"); len(r.Deliveries) != 1 || r.Err() != nil {
		t.Errorf("%+v, want the one that was registered", r.Deliveries)
	}
}

func TestRegistryClosedFirst(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b := newBroker(t, reg, http.Options{})
	subscribe(t, b, "topic", ignore)
	publish(t, b, "topic", "x")
	_ = reg.Close()
	if r := publish(t, b, "topic", "x"); r.Delivered() != 1 {
		t.Errorf("%+v, want the last set to be used", r.Deliveries)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestDeregisterFails(t *testing.T) {
	t.Parallel()
	reg := newFaulty(t)
	b := newBroker(t, deregisterFails{reg}, http.Options{})
	sub := subscribe(t, b, "topic", ignore)
	if err := sub.Close(); !errors.Is(err, errAway) {
		t.Errorf("error %v, want the registry's", err)
	}
	// Its record still stands, and says no more than that it is gone.
	other := newBroker(t, reg, http.Options{})
	if r := publish(t, other, "topic", "x"); len(r.Deliveries) != 0 {
		t.Errorf("%+v, want none: the subscriber says that it is gone", r.Deliveries)
	}
}

type deregisterFails struct{ registry.Registry }

func (deregisterFails) Deregister(context.Context, registry.Node) error { return errAway }

func TestAttach(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	p := newPort(t)
	b := newBroker(t, reg, http.Options{})
	if err := b.Attach(p); err != nil {
		t.Fatal(err)
	}
	subscribe(t, b, "topic", ignore)
	n := onlyNode(t, reg)
	if n.Address != p.Addr() {
		t.Errorf("announced %s, want the service's %s", n.Address, p.Addr())
	}
	post := func(url string, headers ...string) int {
		r := httptest.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(envelope("topic", nil)))
		r.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		return w.Code
	}
	for name, got := range map[string]int{
		"/":                 post("/?id=" + n.ID),
		"/_sub":             post("/_sub?id=" + n.ID),
		"beside parameters": post("/?a=b&id=" + n.ID),
	} {
		if got != 200 {
			t.Errorf("%s: code %d, want 200", name, got)
		}
	}
	for name, got := range map[string]int{
		"no id":            post("/"),
		"empty id":         post("/?id="),
		"other parameter":  post("/?guid=" + n.ID),
		"other path":       post("/Say.Hello?id=" + n.ID),
		"call":             post("/?id="+n.ID, "Micro-Endpoint", "Say.Hello"),
		"call of a method": post("/?id="+n.ID, "X-Micro-Method", "Say.Hello"),
		"addressed call":   post("/?id="+n.ID, "Micro-Service", "greeter"),
		"event":            post("/?id="+n.ID, "Micro-Topic", "topic"),
	} {
		if got != nethttp.StatusTeapot {
			t.Errorf("%s: code %d, want that it goes to the service", name, got)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := post("/?id=" + n.ID); got != 503 {
		t.Errorf("after Close: code %d, want 503", got)
	}
}

func TestAttachTooLate(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b := newBroker(t, reg, http.Options{})
	if err := b.Attach(newPort(t)); err != nil {
		t.Fatal(err)
	}
	if err := b.Attach(newPort(t)); !errors.Is(err, broker.ErrInvalid) {
		t.Errorf("Attach twice: %v, want ErrInvalid", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Attach(newPort(t)); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Attach after Close: %v, want ErrClosed", err)
	}
	late := newBroker(t, reg, http.Options{})
	subscribe(t, late, "topic", ignore)
	if err := late.Attach(newPort(t)); !errors.Is(err, broker.ErrInvalid) {
		t.Errorf("Attach after Subscribe: %v, want ErrInvalid", err)
	}
}

func TestAnnounce(t *testing.T) {
	t.Parallel()
	tests := []struct{ address, announce, want string }{ // want: a prefix; empty for an error
		{"127.0.0.1:0", "", "127.0.0.1:"},
		{"127.0.0.1:0", "localhost:0", "localhost:"},
		{"127.0.0.1:0", "example.com:80", "example.com:80"},
		{"0.0.0.0:0", "127.0.0.1:0", "127.0.0.1:"},
		{"0.0.0.0:0", "", ""},
		{":0", "", ""},
		{"127.0.0.1:0", "no port", ""},
		{"127.0.0.1:0", ":80", ""},
	}
	for _, test := range tests {
		reg := newRegistry(t)
		b := newBroker(t, reg, http.Options{Address: test.address, Announce: test.announce})
		_, err := b.Subscribe(t.Context(), "topic", ignore)
		if test.want == "" {
			if !errors.Is(err, broker.ErrInvalid) {
				t.Errorf("%+v: %v, want ErrInvalid", test, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", test, err)
		} else if n := onlyNode(t, reg); !strings.HasPrefix(n.Address, test.want) || strings.HasSuffix(n.Address, ":0") {
			t.Errorf("%+v: announced %s", test, n.Address)
		}
	}
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	first := newBroker(t, reg, http.Options{})
	subscribe(t, first, "topic", ignore)
	address := onlyNode(t, reg).Address
	second := newBroker(t, reg, http.Options{Address: address})
	if _, err := second.Subscribe(t.Context(), "topic", ignore); !isUnavailable(err) || !strings.Contains(err.Error(), address) {
		t.Errorf("error %v, want ErrUnavailable that names %s", err, address)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	subscribe(t, second, "topic", ignore) // the address is free now
}

func TestOptions(t *testing.T) {
	t.Parallel()
	if _, err := http.New(nil, http.Options{}); !errors.Is(err, broker.ErrInvalid) {
		t.Errorf("no registry: %v, want ErrInvalid", err)
	}
	reg := newRegistry(t)
	for _, o := range []http.Options{{TTL: -1}, {MaxMessage: -1}, {DialTimeout: -1}, {RegistryTimeout: -1}, {ReadTimeout: -1}, {Parallel: -1}, {MaxConns: -1}} {
		if _, err := http.New(reg, o); !errors.Is(err, broker.ErrInvalid) {
			t.Errorf("%+v: %v, want ErrInvalid", o, err)
		}
	}
	b := newBroker(t, reg, http.Options{MaxMessage: 10})
	if _, err := b.Publish(t.Context(), &broker.Message{Topic: "topic", Body: make([]byte, 11)}); !errors.Is(err, broker.ErrInvalid) {
		t.Errorf("body over MaxMessage: %v, want ErrInvalid", err)
	}
	if _, err := b.Subscribe(t.Context(), "topic", ignore, broker.Queue("ff.http.broadcast")); !errors.Is(err, broker.ErrInvalid) {
		t.Errorf("the queue that means none: %v, want ErrInvalid", err)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	set := broker.Openers{"http": http.Open(reg, http.Options{})}
	if b, err := http.Open(nil, http.Options{})(t.Context(), &url.URL{Scheme: "http"}); err == nil || b != nil {
		t.Errorf("without a registry: %#v, %v, want an error and nil", b, err)
	}
	for raw, ok := range map[string]bool{
		"http":                     true,
		"http://127.0.0.1:0":       true,
		"http?ttl=10s":             true,
		"http?max-message=1000":    true,
		"http://?announce=a.b:0":   true,
		"http?ttl=soon":            false,
		"http?ttl=-1s":             false,
		"http?max-message=a":       false,
		"http?colour=red":          false,
		"http://127.0.0.1:0?ttl=0": false,
	} {
		b, err := set.Open(t.Context(), raw)
		if (err == nil) != ok {
			t.Errorf("%s: %v", raw, err)
		}
		if err == nil {
			_ = b.Close()
		}
	}
}
