package grpc_test

import (
	"context"
	"testing"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
)

// onePort dials by gRPC what listens by HTTP.
type onePort struct {
	*grpc.Transport
	port *transporthttp.Transport
}

func (p onePort) Listen(ctx context.Context, addr string) (transport.Listener, error) {
	return p.port.Listen(ctx, addr)
}

// gzipMax is smaller than the usual limit: the race detector has gzip take seconds for messages that it cannot make smaller.
const gzipMax = 512 << 10

func TestConformance(t *testing.T) {
	t.Parallel()
	config := testTLS(t)
	for name, open := range map[string]func(t *testing.T) transport.Transport{
		"own port": func(t *testing.T) transport.Transport { return newTransport(t, grpc.Options{}) },
		"TLS":      func(t *testing.T) transport.Transport { return newTransport(t, grpc.Options{TLSConfig: config}) },
		"gzip": func(t *testing.T) transport.Transport {
			return newTransport(t, grpc.Options{Gzip: true, MaxMessage: gzipMax})
		},
		"beside HTTP": func(t *testing.T) transport.Transport {
			return onePort{newTransport(t, grpc.Options{}), beside(t, transporthttp.Options{})}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			transporttest.RunExchanges(t, func(t *testing.T) transporttest.Harness {
				h := transporttest.Harness{Transport: open(t), Address: "127.0.0.1:0"}
				if name == "gzip" {
					h.MaxMessage = gzipMax
				}
				return h
			})
		})
	}
}
