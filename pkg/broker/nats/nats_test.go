package nats_test

import (
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/nats"
)

func TestCore(t *testing.T) {
	brokertest.Run(t, harness(nil, brokertest.Capabilities{Several: true}))
}

func TestStream(t *testing.T) {
	brokertest.Run(t, harness(withStream, brokertest.Capabilities{Several: true, Keeps: true, Redelivers: true, Tries: 4}))
}

func withStream(o *nats.Options) {
	o.Stream, o.Tries, o.RetryWait = "test", 4, 20*time.Millisecond
}

// harness runs each test of the suite in an account of its own, or against a server of its own.
func harness(change func(*nats.Options), can brokertest.Capabilities) brokertest.Harness {
	opener := func(t *testing.T, o nats.Options) func() broker.Broker {
		if change != nil {
			change(&o)
		}
		return func() broker.Broker { return open(t, o) }
	}
	return brokertest.Harness{
		New: func(t *testing.T) func() broker.Broker { return opener(t, account(t)) },
		Server: func(t *testing.T) brokertest.Server {
			s := own(t, withStreams)
			return brokertest.Server{
				Open: opener(t, nats.Options{Servers: []string{s.Addr}}), Kill: func() { s.Stop("KILL") }, Start: func() { s.MustStart(t) },
			}
		},
		Can: can,
	}
}
