//go:build googlepubsub

package commands

import (
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/googlepubsub"
)

// addTagged adds the brokers that the binary has by a build tag alone: their clients are large, and take time at each start.
func addTagged(o broker.Openers) broker.Openers {
	o["googlepubsub"] = googlepubsub.Open
	return o
}
