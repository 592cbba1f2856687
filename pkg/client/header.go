package client

import (
	"bytes"
	"fmt"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// keepSection is the largest header, in bytes, that is remembered from one call to the next.
const keepSection = 4 << 10

// section makes the header of calls: the framework's own pairs, then the metadata. Most calls of a record have the header
// of the one before, so it remembers what it made it of, byte by byte, and does nothing where all of that is the same.
type section struct {
	md    metadata.MD // the header
	built bool

	service, endpoint, contentType string           // what names is made of
	outgoing, header               []byte           // copies of what pairs is made of
	names, pairs                   metadata.Builder // the header's two halves
}

// build makes the header of req. The error wraps metadata.ErrInvalid; md is not valid then.
func (s *section) build(req *Request, outgoing metadata.MD) error {
	named := s.built && req.Service == s.service && req.Endpoint == s.endpoint && req.ContentType == s.contentType
	paired := s.built && bytes.Equal(outgoing, s.outgoing) && bytes.Equal(req.Header, s.header)
	if named && paired {
		return nil
	}
	s.built = false
	if !named {
		if err := s.name(req); err != nil {
			return err
		}
	}
	if !paired {
		if err := s.pair(req.Header, outgoing); err != nil {
			return err
		}
	}
	names, pairs := s.names.MD(), s.pairs.MD()
	if size := len(names) + len(pairs); size > metadata.MaxSize {
		return fmt.Errorf("%w: a header of %d bytes, limit %d", metadata.ErrInvalid, size, metadata.MaxSize)
	}
	if n := s.names.Len() + s.pairs.Len(); n > metadata.MaxPairs {
		return fmt.Errorf("%w: a header of %d pairs, limit %d", metadata.ErrInvalid, n, metadata.MaxPairs)
	}
	s.md = append(append(s.md[:0], names...), pairs...)
	s.built = true
	return nil
}

func (s *section) name(req *Request) error {
	s.service, s.endpoint, s.contentType = req.Service, req.Endpoint, req.ContentType
	s.names.Reset()
	for _, p := range [...][2]string{
		{transport.HeaderService, req.Service}, {transport.HeaderEndpoint, req.Endpoint}, {transport.HeaderContentType, req.ContentType},
	} {
		if p[1] == "" {
			continue
		}
		if err := s.names.Set(p[0], p[1]); err != nil {
			return err
		}
	}
	return nil
}

func (s *section) pair(header, outgoing metadata.MD) error {
	s.outgoing = append(s.outgoing[:0], outgoing...)
	s.header = append(s.header[:0], header...)
	s.pairs.Reset()
	if err := s.pairs.Merge(outgoing, reserved); err != nil {
		return err
	}
	return s.pairs.Merge(header, reserved)
}

// trim gives up storage that is over keepSection.
func (s *section) trim() {
	if cap(s.md)+cap(s.outgoing)+cap(s.header) > 3*keepSection {
		*s = section{}
	}
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
