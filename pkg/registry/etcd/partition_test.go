package etcd_test

import (
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/etcd"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestPartition(t *testing.T) {
	registrytest.RunPartitions(t, registrytest.Partitions{
		Server: func(t *testing.T) testserver.Spec {
			if err := testserver.EtcdMissing(); err != nil {
				testserver.Skip(t, err.Error())
			}
			return testserver.Etcd()
		},
		Open: func(t *testing.T, address string) registry.Registry {
			return open(t, etcd.Options{Endpoints: []string{address}, TTL: 2 * time.Second})
		},
	})
}
