package websocket_test

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
	"github.com/cb02dfca/micro/pkg/transport/websocket"
)

func TestPartition(t *testing.T) {
	transporttest.RunPartitions(t, transporttest.Partitions{
		Open: func(t *testing.T, _ string) transport.Transport {
			return newTransport(t, websocket.Options{Insecure: true})
		},
	})
}
