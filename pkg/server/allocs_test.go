//go:build !race

// Under the race detector a sync.Pool drops some of what it is given.

package server_test

import (
	"context"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
)

func TestUnaryAllocatesNothing(t *testing.T) {
	s := summing(t, server.Pooled())
	if err := s.Register(&Sums{}, server.Method("Into", server.Pooled())); err != nil {
		t.Fatal(err)
	}
	c := direct(t, s)
	for _, endpoint := range []string{"Sum.Add", "Sums.Into"} {
		d := c.to(endpoint, "application/x-sum", fourPairs())
		d.req.Body, _ = plainCodec{}.Append(nil, &Sum{A: 1, B: 2})
		d.call(time.Second)
		if n := testing.AllocsPerRun(1000, func() { d.call(time.Second) }); n != 0 {
			t.Errorf("%s: %v allocations", endpoint, n)
		}
		var sum Sum
		if err := (plainCodec{}).Unmarshal(d.rsp.Body, &sum); err != nil || sum.A != 3 {
			t.Errorf("%s: %+v %v, error %v", endpoint, sum, err, errorOf(&d.rsp))
		}
	}
}

// TestEventAllocatesNothing: a subscription hands messages with the same header on without an allocation.
func TestEventAllocatesNothing(t *testing.T) {
	s := newServer(t)
	got := 0
	_ = s.Subscribe("events", func(ctx context.Context, c *server.Call) error {
		body, err := c.RecvRaw()
		if token, _ := metadata.Incoming(ctx).Bytes("token"); string(token) == "t1" {
			got += len(body)
		}
		return err
	})
	sub := s.Subscriptions()[0]
	m := &broker.Message{Topic: "events", Header: metadata.Of("token", "t1", "content-type", "application/json"), Body: []byte("x")}
	n := testing.AllocsPerRun(1000, func() {
		if err := sub.Handle(t.Context(), m); err != nil {
			t.Error(err)
		}
	})
	if n != 0 || got == 0 {
		t.Errorf("%v allocations, %d bytes received", n, got)
	}
}

// TestStreamAllocatesNothing: a stream's messages go out in storage that is used again.
func TestStreamAllocatesNothing(t *testing.T) {
	if n := sendAllocations(t); n != 0 {
		t.Errorf("%v allocations for a message", n)
	}
}
