package client

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// keepSection is the largest header, in bytes, that is remembered from one call to the next.
const keepSection = 4 << 10

// section makes the header of a record's calls: the framework's own pairs, then the metadata. Most calls have the header of the
// one before, so it remembers what it made it of, byte by byte, and does nothing where all of that is the same.
//
// What stays the same for long is shared by the records of a client. Each would else have its own, and callers that are woken on
// another processor would fetch those, too, line by line.
type section struct {
	md   metadata.MD // the header
	made *made       // what md is of: own, or one that is shared; nil: nothing
	own  *own        // nil where there never was a header of the record's own
}

// made is a header, and what it was made of. One that is shared is not changed.
type made struct {
	service, endpoint, contentType string
	outgoing, header               []byte // copies
	md                             metadata.MD
}

// own is storage for the headers of one record.
type own struct {
	made
	names, pairs metadata.Builder // the header's two halves
	hits         int              // calls in a row that had this header
}

// build makes the header of req. The error wraps metadata.ErrInvalid; md is not valid then.
func (s *section) build(c *Client, req *Request, outgoing metadata.MD) error {
	m := s.made
	if m == nil || !m.named(req) || !m.paired(req, outgoing) {
		return s.make(req, outgoing)
	}
	if s.own != nil && m == &s.own.made {
		if s.own.hits++; s.own.hits >= settled {
			s.share(&c.headers)
		}
	}
	return nil
}

func (m *made) named(req *Request) bool {
	return req.Service == m.service && req.Endpoint == m.endpoint && req.ContentType == m.contentType
}

func (m *made) paired(req *Request, outgoing metadata.MD) bool {
	return bytes.Equal(outgoing, m.outgoing) && bytes.Equal(req.Header, m.header)
}

// make is build for a header that is not that of the call before.
func (s *section) make(req *Request, outgoing metadata.MD) error {
	if s.own == nil {
		s.own = new(own)
	}
	o, fresh := s.own, s.made == nil || s.made != &s.own.made
	s.made = nil
	if fresh || !o.named(req) {
		if err := o.name(req); err != nil {
			return err
		}
	}
	if fresh || !o.paired(req, outgoing) {
		if err := o.pair(req.Header, outgoing); err != nil {
			return err
		}
	}
	names, pairs := o.names.MD(), o.pairs.MD()
	if size := len(names) + len(pairs); size > metadata.MaxSize {
		return fmt.Errorf("%w: a header of %d bytes, limit %d", metadata.ErrInvalid, size, metadata.MaxSize)
	}
	if n := o.names.Len() + o.pairs.Len(); n > metadata.MaxPairs {
		return fmt.Errorf("%w: a header of %d pairs, limit %d", metadata.ErrInvalid, n, metadata.MaxPairs)
	}
	o.md, o.hits = append(append(o.md[:0], names...), pairs...), 0
	s.made, s.md = &o.made, o.md
	return nil
}

func (o *own) name(req *Request) error {
	o.service, o.endpoint, o.contentType = req.Service, req.Endpoint, req.ContentType
	o.names.Reset()
	for _, p := range [...][2]string{
		{transport.HeaderService, req.Service}, {transport.HeaderEndpoint, req.Endpoint}, {transport.HeaderContentType, req.ContentType},
	} {
		if p[1] == "" {
			continue
		}
		if err := o.names.Set(p[0], p[1]); err != nil {
			return err
		}
	}
	return nil
}

func (o *own) pair(header, outgoing metadata.MD) error {
	o.outgoing = append(o.outgoing[:0], outgoing...)
	o.header = append(o.header[:0], header...)
	o.pairs.Reset()
	if err := o.pairs.Merge(outgoing, reserved); err != nil {
		return err
	}
	return o.pairs.Merge(header, reserved)
}

// trim gives up storage that is over keepSection.
func (s *section) trim() {
	if o := s.own; o != nil && cap(o.md)+cap(o.outgoing)+cap(o.header) > 3*keepSection {
		*s = section{}
	}
}

// settled is how many calls of a record in a row have one header before it is shared. What differs from call to call, such as the
// id of a trace, is not worth it.
const settled = 64

// headers are those that the records of a client share. A later one may take an earlier one's place; records that have
// that one go on with it.
type headers [16]atomic.Pointer[made]

// share makes the record's header a shared one: one that is there already, or a copy.
func (s *section) share(all *headers) {
	o := s.own
	o.hits = 0
	if len(o.md)+len(o.outgoing)+len(o.header) > keepSection {
		return
	}
	place := &all[o.place()%uint64(len(all))]
	there := place.Load()
	if there == nil || !there.equal(&o.made) {
		there = o.made.clone()
		place.Store(there)
	}
	*s = section{md: there.md, made: there}
}

var seed = maphash.MakeSeed()

func (m *made) place() uint64 { return maphash.Bytes(seed, m.md) }

func (m *made) equal(other *made) bool {
	return m.service == other.service && m.endpoint == other.endpoint && m.contentType == other.contentType &&
		bytes.Equal(m.outgoing, other.outgoing) && bytes.Equal(m.header, other.header)
}

func (m *made) clone() *made {
	c := *m
	c.outgoing, c.header, c.md = bytes.Clone(m.outgoing), bytes.Clone(m.header), m.md.Clone()
	return &c
}

// usual is the header of an answer of success without metadata, which most answers have.
type usual struct {
	header      []byte
	contentType string
}

// usuals are those that a client has met, as many as there is room for. They stay.
type usuals [8]atomic.Pointer[usual]

// find gives the one with that header, which is there from then on; nil where there is no room.
func (u *usuals) find(header []byte, contentType string) *usual {
	for i := range u {
		there := u[i].Load()
		if there == nil {
			made := &usual{bytes.Clone(header), contentType}
			if u[i].CompareAndSwap(nil, made) {
				return made
			}
			there = u[i].Load()
		}
		if bytes.Equal(there.header, header) {
			return there
		}
	}
	return nil
}

// reserved is transport.Reserved for a key in lower case, as all are that metadata carries.
func reserved(key []byte) bool {
	const own = "micro-"
	return len(key) >= len(own) && string(key[:len(own)]) == own || string(key) == transport.HeaderContentType
}

// merge gives md with the pairs of others set, later ones over earlier ones, but for names that the framework keeps.
func merge(md metadata.MD, others ...metadata.MD) (metadata.MD, error) {
	for _, other := range others {
		for k, v := range other.All() {
			var err error
			if transport.Reserved(k) {
				continue
			}
			if md, err = md.Set(k, v); err != nil {
				return nil, err
			}
		}
	}
	return md, nil
}
