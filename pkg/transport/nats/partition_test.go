package nats_test

import (
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/nats"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
)

func TestPartition(t *testing.T) {
	transporttest.RunPartitions(t, transporttest.Partitions{
		Server: func(t *testing.T) testserver.Spec {
			if err := testserver.NATSMissing(); err != nil {
				testserver.Skip(t, err.Error())
			}
			return testserver.NATS()
		},
		Open: func(t *testing.T, server string) transport.Transport {
			return open(t, nats.Options{Servers: []string{server}})
		},
	})
}
