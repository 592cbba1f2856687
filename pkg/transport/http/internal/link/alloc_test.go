//go:build !race

package link_test

import (
	"context"
	"sync"
	"testing"
	"time"

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
