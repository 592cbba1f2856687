package consul

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/cb02dfca/micro/pkg/registry"
)

// What a tag begins with says what it holds, and the next byte how: '-' packed, '=' plain, which is the older form.
const (
	tagMeta     = 't'
	tagEndpoint = 'e'
	tagVersion  = 'v'
	packed      = '-'
	plain       = '='
)

// tagsOf gives the tags of a node, in an order that is always the same.
func tagsOf(n registry.Node) ([]string, error) {
	tags := make([]string, 0, len(n.Metadata)+len(n.Endpoints)+1)
	for _, k := range slices.Sorted(maps.Keys(n.Metadata)) {
		text, err := json.Marshal(map[string]string{k: n.Metadata[k]})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", registry.ErrInvalid, err)
		}
		tags = append(tags, pack(tagMeta, text))
	}
	for _, e := range n.Endpoints {
		text, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", registry.ErrInvalid, err)
		}
		tags = append(tags, pack(tagEndpoint, text))
	}
	return append(tags, pack(tagVersion, []byte(n.Version))), nil
}

// writers and readers are kept, as a new one weighs many times what it packs.
var (
	writers = sync.Pool{New: func() any { return zlib.NewWriter(io.Discard) }}
	readers sync.Pool // of io.ReadCloser
)

// pack makes a tag.
func pack(kind byte, text []byte) string {
	var b bytes.Buffer
	w := writers.Get().(*zlib.Writer)
	defer writers.Put(w)
	w.Reset(&b)
	_, _ = w.Write(text) // a buffer takes everything
	_ = w.Close()
	return string(kind) + string(packed) + hex.EncodeToString(b.Bytes())
}

// unpack gives what stands in a packed tag after its beginning, limit bytes at most and a byte more where there is more than that.
// ok is false where it is not packed.
func unpack(text string, limit int) (_ []byte, ok bool) {
	data, err := hex.DecodeString(text)
	if err != nil {
		return nil, false
	}
	r, ok := readers.Get().(io.ReadCloser)
	if ok {
		err = r.(zlib.Resetter).Reset(bytes.NewReader(data), nil)
	} else {
		r, err = zlib.NewReader(bytes.NewReader(data))
	}
	if err != nil {
		return nil, false
	}
	defer readers.Put(r)
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	return out, err == nil
}

// tag is what a tag holds.
type tag struct {
	kind     byte // 0: it is none of ours
	form     byte
	size     int // of the text, also of one that is none of ours
	version  string
	meta     map[string]string
	endpoint registry.Endpoint
}

// read gives what a tag holds. One with a text of over limit bytes is given with its size alone.
func read(text string, limit int) tag {
	if len(text) < 2 || text[1] != packed && text[1] != plain {
		return tag{}
	}
	t := tag{kind: text[0], form: text[1]}
	content, ok := []byte(text[2:]), true
	if t.kind != tagMeta && t.kind != tagEndpoint && t.kind != tagVersion {
		return tag{}
	}
	if t.form == packed {
		content, ok = unpack(text[2:], limit)
	}
	if t.size = len(content); t.size > limit {
		return t
	}
	switch {
	case !ok:
		return tag{size: t.size}
	case t.kind == tagVersion:
		t.version = string(content)
		return t
	case t.kind == tagMeta:
		ok = json.Unmarshal(content, &t.meta) == nil
	default:
		ok = json.Unmarshal(content, &t.endpoint) == nil && !bytes.Equal(content, []byte("null"))
	}
	if !ok {
		return tag{size: t.size}
	}
	return t
}

// maxUnpacked bounds what the tags of one reading come to.
const maxUnpacked = 128 << 20

// decoder makes nodes of what Consul has. The nodes of a service have most of their tags in common, from one reading to the
// next and with each other; so it remembers those of this reading and of the last one. It is not for concurrent use.
type decoder struct {
	now, before map[string]tag
	unpacked    int // bytes, in this reading
}

// turn begins a reading.
func (d *decoder) turn() { d.now, d.before, d.unpacked = make(map[string]tag, len(d.now)), d.now, 0 }

func (d *decoder) tag(text string, limit int) tag {
	if t, ok := d.now[text]; ok {
		return t
	}
	t, ok := d.before[text]
	if !ok {
		t = read(text, min(limit, maxUnpacked-d.unpacked))
	}
	if d.unpacked += t.size; t.size <= limit && d.unpacked <= maxUnpacked { // else it was not read to its end
		d.now[text] = t
	}
	return t
}

// node gives the node that an entry is. ok is false where it is another program's. The error wraps registry.ErrInvalid.
func (d *decoder) node(e *entry) (_ registry.Node, ok bool, err error) {
	n := registry.Node{ID: e.Service.ID, Service: e.Service.Service}
	if n.Address = e.Service.Address; n.Address == "" {
		n.Address = e.Node.Address
	}
	n.Address = joinAddress(n.Address, e.Service.Port)
	var forms [256]byte // of each kind: that of the first tag counts, as with go-micro
	left := registry.MaxRecord
	for _, text := range e.Service.Tags {
		t := d.tag(text, left)
		switch left -= t.size; {
		case left < 0:
			return n, true, fmt.Errorf("%w: the tags of %s hold over %d bytes", registry.ErrInvalid, n.ID, registry.MaxRecord)
		case d.unpacked > maxUnpacked:
			return n, true, fmt.Errorf("%w: the tags of all nodes hold over %d bytes", registry.ErrInvalid, maxUnpacked)
		case t.kind == 0 || forms[t.kind] != 0 && forms[t.kind] != t.form:
			continue
		}
		first := forms[t.kind] == 0
		forms[t.kind] = t.form
		switch t.kind {
		case tagMeta:
			if n.Metadata == nil {
				n.Metadata = make(map[string]string, len(e.Service.Tags))
			}
			maps.Copy(n.Metadata, t.meta)
		case tagEndpoint:
			n.Endpoints = append(n.Endpoints, t.endpoint)
		case tagVersion:
			if first {
				n.Version = t.version
			}
		}
	}
	if forms[tagVersion] == 0 {
		return n, false, nil
	}
	return n, true, registry.Validate(n)
}

// hasVersion reports whether among the tags of a service is one that could be a node's version.
func hasVersion(tags []string) bool {
	return slices.ContainsFunc(tags, func(t string) bool { return len(t) > 1 && t[0] == tagVersion && (t[1] == packed || t[1] == plain) })
}
