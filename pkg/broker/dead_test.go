package broker_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

func TestDeadTopic(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", broker.MaxTopic)
	for topic, want := range map[string]string{"orders": "orders.dead", "orders.dead": "orders.dead", long: long[:broker.MaxTopic-5] + ".dead"} {
		got := broker.DeadTopic(topic)
		if got != want || !broker.ValidTopic(got) || !broker.IsDeadTopic(got) || broker.DeadTopic(got) != got {
			t.Errorf("DeadTopic(%q) = %q, want %q", topic, got, want)
		}
	}
}

func TestDeadLetter(t *testing.T) {
	t.Parallel()
	m := &broker.Message{Topic: "orders", ID: "7", Header: metadata.Of("a", "b"), Body: []byte("x")}
	for _, cause := range []error{nil, errors.New("a\nb\xff"), errors.New(strings.Repeat("ü", 1000))} {
		d := broker.DeadLetter(m, "", 5, cause)
		if err := broker.CheckMessage(d, broker.MaxMessage); err != nil || d.ID != "7" || d.Header.Get("a") != "b" || string(d.Body) != "x" {
			t.Errorf("of %v came %+v, %v", cause, d, err)
		}
		if got := d.Header.Get(broker.DeadReasonKey); got == "" || len(got) > 512 || strings.Contains(got, "\n") {
			t.Errorf("of %v came the reason %q", cause, got)
		}
		if d.Header.Get(broker.DeadTriesKey) != "5" || d.Header.Get(broker.DeadTopicKey) != "orders" || d.Header.Get(broker.DeadQueueKey) != "" {
			t.Errorf("the header is %v", d.Header)
		}
	}
	full := &broker.Message{Topic: "t"}
	for i := range metadata.MaxPairs {
		full.Header, _ = full.Header.Set("k-"+strings.Repeat("x", i), "v")
	}
	if err := broker.CheckMessage(broker.DeadLetter(full, "q", 5, errors.New("no")), broker.MaxMessage); err != nil {
		t.Errorf("of a full header came %v", err)
	}
}
