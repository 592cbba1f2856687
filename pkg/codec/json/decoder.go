package json

import (
	"bytes"
	"encoding/json"
	"io"
)

// keepBuffer is the size of the data after which a decoder is kept, with its buffer, for the next.
const keepBuffer = 64 << 10

// decoder is an encoding/json decoder that reads one slice after the other: as one stream of values, of which it keeps
// nothing in between. One is used again and again, since making it takes a kilobyte. It is for one goroutine at a time.
type decoder struct {
	*json.Decoder
	rest []byte // what it has not read of the present slice
}

func (d *decoder) Read(p []byte) (int, error) {
	if len(d.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// unmarshalValue decodes data, one JSON value, into v.
func (c *Codec) unmarshalValue(data []byte, v any) error {
	d, ok := c.decoders.Get().(*decoder)
	if !ok {
		d = new(decoder)
		d.Decoder = json.NewDecoder(d)
		if c.strict {
			d.DisallowUnknownFields()
		}
	}
	start := d.InputOffset()
	d.rest = bytes.TrimRight(data, " \t\r\n") // so that nothing is left when all is well
	whole := int64(len(d.rest))
	if err := d.Decode(v); err != nil {
		e := describe(err)
		if d.InputOffset() == start && e.Offset > 0 {
			e.Offset -= start // it found no value, and counts from its own beginning
		}
		return e // the decoder is not used again: an error of syntax stays in it
	}
	if end := d.InputOffset() - start; end != whole {
		return &Error{Offset: int64(len(data) - len(bytes.TrimLeft(data[end:], " \t\r\n"))), reason: "more data after the value"}
	}
	if len(data) <= keepBuffer {
		d.rest = nil
		c.decoders.Put(d)
	}
	return nil
}
