package nats_test

import (
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/nats"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestPartition(t *testing.T) {
	registrytest.RunPartitions(t, registrytest.Partitions{
		Server: func(t *testing.T) testserver.Spec {
			if err := testserver.NATSMissing(); err != nil {
				testserver.Skip(t, err.Error())
			}
			return testserver.NATS()
		},
		Back: 13 * time.Second, // what left meanwhile goes when its lease is over, 3 s after the connection was made
		Open: func(t *testing.T, address string) registry.Registry {
			return open(t, nats.Options{Servers: []string{address}, TTL: 2 * time.Second})
		},
	})
}
