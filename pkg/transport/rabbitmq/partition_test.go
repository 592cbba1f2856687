package rabbitmq_test

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/rabbitmq"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
)

func TestPartition(t *testing.T) {
	transporttest.RunPartitions(t, transporttest.Partitions{
		Server: servers.Beyond,
		Open: func(t *testing.T, server string) transport.Transport {
			return open(t, rabbitmq.Options{Addrs: []string{server}})
		},
	})
}
