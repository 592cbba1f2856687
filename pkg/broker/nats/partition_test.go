package nats_test

import (
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/nats"
)

// ackWait is after how long another gets what a member had in hand that is cut off, or it itself.
const ackWait = 5 * time.Second

func TestPartition(t *testing.T) { partitioned(t, nil) }

func TestPartitionOfStream(t *testing.T) { partitioned(t, withStream) }

func partitioned(t *testing.T, change func(*nats.Options)) {
	brokertest.RunPartitions(t, brokertest.Partitions{
		Server: func(t *testing.T) testserver.Spec {
			if err := testserver.NATSMissing(); err != nil {
				testserver.Skip(t, err.Error())
			}
			return testserver.NATS(withStreams)
		},
		Open: func(t *testing.T, address string) broker.Broker {
			o := nats.Options{Servers: []string{address}}
			if change != nil {
				change(&o)
				o.AckWait = ackWait
			}
			return open(t, o)
		},
		Keeps: change != nil, Redelivery: ackWait,
	})
}
