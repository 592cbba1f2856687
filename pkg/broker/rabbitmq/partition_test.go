package rabbitmq_test

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/rabbitmq"
)

func TestPartition(t *testing.T) {
	brokertest.RunPartitions(t, brokertest.Partitions{
		Server: servers.Beyond,
		Open: func(t *testing.T, address string) broker.Broker {
			return open(t, rabbitmq.Options{Addrs: []string{address}})
		},
		Keeps: true,
	})
}
