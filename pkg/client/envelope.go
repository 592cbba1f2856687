package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// sort tells the codecs that carry a value by themselves from the envelopes, which a call names.
func (c *Client) sort() {
	c.all = c.codecs
	var plain codec.Set
	for _, cd := range c.all {
		if e, ok := cd.(codec.Envelope); ok {
			c.envelopes = append(c.envelopes, e)
		} else {
			plain = append(plain, cd)
		}
	}
	if len(plain) > 0 {
		c.codecs = plain
	}
}

// inner gives the codec of the values that go by cd.
func inner(cd codec.Codec) codec.Codec {
	if e, ok := cd.(codec.Envelope); ok {
		return e.Values()
	}
	return cd
}

// enclose puts the request's body into the envelope of its content type, if that is one of an envelope.
func (t *trial) enclose() (err error) {
	e := t.client.envelope(t.req.ContentType)
	if e == nil || t.req.Stream {
		return nil
	}
	r := t.rarely()
	r.envelope, r.number = e, t.client.calling.Add(1)-1
	r.enclosed, err = e.AppendRequest(r.enclosed[:0], t.req.Endpoint, r.number, t.req.Body)
	return err
}

// envelope gives the envelope of a content type, nil where that is another's.
func (c *Client) envelope(contentType string) codec.Envelope {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.TrimSpace(media)
	for _, e := range c.envelopes {
		if strings.EqualFold(e.ContentType(), media) {
			return e
		}
	}
	return nil
}

// disclose takes the envelope off an answer. The error is a *status.Error where it is the server's.
func (t *trial) disclose() error {
	e := t.rare.envelope
	body, err := e.ReadResponse(t.in.Body, t.rare.number)
	if err != nil {
		if isRemote(err) {
			return err
		}
		return fmt.Errorf("%w: the answer came as %q: %w", transport.ErrProtocol, t.rsp.ContentType, err)
	}
	t.in.Body, t.rsp.ContentType, t.rsp.Body = body, e.Values().ContentType(), body
	return nil
}

// isRemote reports whether err is one that the server answered with.
func isRemote(err error) bool {
	e, ok := errors.AsType[*status.Error](err)
	return ok && e.Remote
}
