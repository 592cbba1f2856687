package drain_test

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
)

func TestVerdicts(t *testing.T) {
	t.Parallel()
	var tr drain.Tracker
	steps := []struct {
		name string
		kind transport.Kind
		id   uint32
		want drain.Verdict
	}{
		{"first call", transport.Call, 5, drain.Take},
		{"second call", transport.Call, 6, drain.Take},
		{"same id", transport.Call, 5, drain.Broken},
		{"data for a call", transport.Data, 5, drain.Broken},
		{"data for nothing", transport.Data, 7, drain.Broken},
		{"cancel of a call", transport.Cancel, 5, drain.Take},
		{"cancel twice", transport.Cancel, 5, drain.Drop},
		{"cancel of nothing", transport.Cancel, 99, drain.Drop},
		{"stream", transport.Open, 8, drain.Take},
		{"second stream", transport.Open, 9, drain.Broken},
		{"data", transport.Data, 8, drain.Take},
		{"end", transport.End, 8, drain.Take},
		{"cancel of a stream", transport.Cancel, 8, drain.Take},
		{"a stream stays open after Cancel", transport.Open, 10, drain.Broken},
		{"ping", transport.Ping, 0, drain.Take},
		{"reply from a client", transport.Reply, 5, drain.Broken},
		{"goaway from a client", transport.GoAway, 0, drain.Broken},
	}
	for _, s := range steps {
		if got := tr.Received(s.kind, s.id); got != s.want {
			t.Fatalf("%s: verdict %d, want %d", s.name, got, s.want)
		}
	}
	tr.Sending(transport.End, 8)
	if got := tr.Received(transport.Open, 11); got != drain.Take {
		t.Fatalf("a stream while the last one's End is being written: verdict %d, want Take", got)
	}
	tr.Sent(transport.End)
	if got := tr.Received(transport.Data, 8); got != drain.Drop {
		t.Fatalf("data of a stream that has ended: verdict %d, want Drop", got)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	var tr drain.Tracker
	tr.Received(transport.Call, 1)
	tr.Received(transport.Open, 2)
	idle := tr.Drain()
	want := func(idleNow bool) {
		t.Helper()
		select {
		case <-idle:
			if !idleNow {
				t.Fatal("idle too early")
			}
		default:
			if idleNow {
				t.Fatal("not idle")
			}
		}
	}
	if tr.Received(transport.Call, 3) != drain.Refuse || tr.Received(transport.Open, 4) == drain.Take {
		t.Fatal("an exchange begins while draining")
	}
	want(false)
	tr.Received(transport.Cancel, 1)
	want(false)
	tr.Sending(transport.Data, 2)
	tr.Sent(transport.Data)
	want(false)
	tr.Sending(transport.End, 2)
	want(false)
	tr.Sent(transport.End)
	want(true)
	if tr.Drain() != idle {
		t.Fatal("a second Drain gives another channel")
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	for kind, answer := range map[transport.Kind]transport.Kind{transport.Call: transport.Reply, transport.Open: transport.End} {
		m := drain.Refusal(kind, 4)
		e := status.Parse(m.Header.Get(transport.HeaderError))
		if m.Kind != answer || m.ID != 4 || e == nil || !e.Refused || e.Code != status.Unavailable {
			t.Errorf("refusal of a %s: %s %d, %v", kind, m.Kind, m.ID, e)
		}
	}
}
