package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Publish publishes v, encoded, to topic, and tells what became of it. v is not kept. See [broker.Broker] for what the
// error means.
func (c *Client) Publish(ctx context.Context, topic string, v any, opts ...CallOption) (broker.Report, error) {
	return c.publish(ctx, topic, []any{v}, opts)
}

// PublishAll publishes each of values, encoded, to topic in one go, which costs much less than a Publish for each: they
// travel in batches. It returns when it is known what became of all of them; the Report tells by their numbers. Their order
// is that of the broker's Publish. Options and the context's metadata are for all of them; ids are the broker's to give. The
// values are not kept. One that does not encode is an error, and none is published then; so are no values at all, which is
// broker.ErrInvalid. See [broker.Broker] for what other errors mean.
func (c *Client) PublishAll(ctx context.Context, topic string, values []any, opts ...CallOption) (broker.Report, error) {
	return c.publish(ctx, topic, values, opts)
}

func (c *Client) publish(ctx context.Context, topic string, values []any, opts []CallOption) (broker.Report, error) {
	k := c.begin(opts)
	defer c.end(k)
	o := k.opts
	if o.err != nil {
		return broker.Report{}, o.err
	}
	if c.broker == nil {
		return broker.Report{}, errors.New("client: no broker: give WithBroker")
	}
	ms, err := c.messages(ctx, topic, values, o)
	if err != nil {
		return broker.Report{}, fmt.Errorf("client: message to %q: %w", topic, err)
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	return c.broker.Publish(ctx, ms...)
}

// messages encodes values. The messages share their storage.
func (c *Client) messages(ctx context.Context, topic string, values []any, o *callOptions) ([]*broker.Message, error) {
	common, err := merge(nil, metadata.Outgoing(ctx), o.header)
	if err != nil {
		return nil, err
	}
	var (
		all    = make([]broker.Message, len(values))
		ms     = make([]*broker.Message, len(values))
		ends   = make([]int, len(values))
		bodies []byte
		last   codec.Codec
		header metadata.MD // with the content type of last
	)
	for i, v := range values {
		var cd codec.Codec
		if cd, bodies, err = c.encode(bodies, o.contentType, v); err == nil && (i == 0 || cd.ContentType() != last.ContentType()) {
			last = cd
			header, err = common.Set(transport.HeaderContentType, cd.ContentType())
		}
		if err != nil {
			if len(values) > 1 {
				err = fmt.Errorf("value %d of %d: %w", i, len(values), err)
			}
			return nil, err
		}
		ends[i] = len(bodies)
		all[i] = broker.Message{Topic: topic, Header: header}
		ms[i] = &all[i]
	}
	first := 0
	for i, end := range ends {
		all[i].Body = bodies[first:end:end]
		first = end
	}
	return ms, nil
}
