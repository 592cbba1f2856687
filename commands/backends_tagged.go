//go:build !googlepubsub

package commands

import (
	"context"
	"errors"
	"net/url"

	"github.com/cb02dfca/micro/pkg/broker"
)

// addTagged tells of the brokers that the binary has by a build tag alone: their clients are large, and take time at each start.
func addTagged(o broker.Openers) broker.Openers {
	o["googlepubsub"] = func(context.Context, *url.URL) (broker.Broker, error) {
		return nil, errors.New("this micro was built without Google Pub/Sub: build it with -tags googlepubsub")
	}
	return o
}
