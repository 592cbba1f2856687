package http_test

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/http"
	thttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// On the port of a service, beside its calls.
func TestSuiteOnTransport(t *testing.T) {
	brokertest.Run(t, brokertest.Harness{
		New: func(t *testing.T) func() broker.Broker {
			reg := newRegistry(t)
			return func() broker.Broker {
				tr, err := thttp.New(thttp.Options{})
				if err != nil {
					t.Fatal(err)
				}
				l, err := tr.Listen(t.Context(), "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = l.Close() })
				b := newBroker(t, reg, http.Options{}) // closed before its port
				if err := b.Attach(l.(http.Mux)); err != nil {
					t.Fatal(err)
				}
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						_ = c.Close()
					}
				}()
				return b
			}
		},
		Can: brokertest.Capabilities{Report: true, Busy: true, Reroute: true, Status: true, Several: true},
	})
}
