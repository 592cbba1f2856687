package http_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http"
	"github.com/cb02dfca/micro/pkg/registry/http/server"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestPartition(t *testing.T) {
	registrytest.RunPartitions(t, registrytest.Partitions{
		Serve: func(t *testing.T, l net.Listener) {
			srv, err := server.New(server.Options{Insecure: true})
			must(t, err)
			ctx, stop := context.WithCancel(context.Background())
			var serving sync.WaitGroup
			serving.Go(func() {
				if err := srv.Serve(ctx, l); err != nil {
					t.Errorf("Serve: %v", err)
				}
			})
			t.Cleanup(func() { stop(); serving.Wait() })
		},
		Open: func(t *testing.T, address string) registry.Registry {
			r, err := http.New(http.Options{URL: "http://" + address, Lease: 2 * time.Second})
			must(t, err)
			return r
		},
		Notice: 22 * time.Second, // where only what is sent to the server is lost: its last words arrive for 10 s
	})
}
