//go:build !race

package link_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// TestAllocations: a call costs none, on either side, alone and beside others.
func TestAllocations(t *testing.T) {
	client, _ := served(t, router(echo, transport.PaceInline))
	req := transport.Message{Timeout: 5 * time.Second, Header: callHeader, Body: make([]byte, 1<<10)}
	var rsp transport.Message
	one := func() {
		if err := client.Call(context.Background(), &req, &rsp); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(5000, one); n != 0 {
		t.Errorf("%v allocations for a call", n)
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	for range 8 {
		others.Go(func() {
			req, rsp := req, transport.Message{}
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := client.Call(context.Background(), &req, &rsp); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if n := testing.AllocsPerRun(5000, one); n != 0 { // those of the others are counted too
		t.Errorf("%v allocations for a call beside others", n)
	}
	close(stop)
	others.Wait()
}

// TestAllocationsOfManyEndpoints: nor do calls to more endpoints than a connection remembers, where the Router does.
func TestAllocationsOfManyEndpoints(t *testing.T) {
	const endpoints = 100
	routes := map[string]*transport.Route{}
	reqs := make([]transport.Message, endpoints)
	for i := range reqs {
		h := metadata.Of(transport.HeaderEndpoint, "E"+strconv.Itoa(i))
		reqs[i] = transport.Message{Header: h, Body: []byte("hello")}
		routes[string(h)] = &transport.Route{Header: h, Serve: echo, Pace: transport.NewPace(transport.PaceInline)}
	}
	client, _ := served(t, func(header metadata.MD) *transport.Route { return routes[string(header)] })
	var rsp transport.Message
	n := testing.AllocsPerRun(200, func() {
		for i := range reqs {
			if err := client.Call(context.Background(), &reqs[i], &rsp); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n > 10 { // the storage of metadata is allocated for many calls at a time
		t.Errorf("%v allocations for %d calls", n, endpoints)
	}
}
