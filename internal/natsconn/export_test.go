package natsconn

import (
	"context"

	"github.com/nats-io/nats.go"
)

// Confirm is the second half of Publish, with what it knew before it sent.
func (c *Conn) Confirm(ctx context.Context, nc *nats.Conn, reconnects uint64) error {
	d := c.watch()
	defer c.unwatch(d)
	return c.Error(c.confirm(ctx, nc, reconnects, d))
}
