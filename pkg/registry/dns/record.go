package dns

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// What a TXT record is made of: strings of key=value, in this order.
const (
	keyFormat  = "micro"   // "1"
	keyOwner   = "owner"   // who holds the node: 32 hexadecimal digits that each Registry makes up
	keyTTL     = "ttl"     // milliseconds for which it holds
	keyUntil   = "until"   // when that is over by its owner's clock, in milliseconds since 1970: other with each renewal
	keyWithout = "without" // "endpoints": they were left out for their size
	keyPlain   = "j"       // a part of the node's JSON
	keyDeflate = "z"       // a part of it, compressed

	format    = "1"
	plainMost = 900      // bytes of JSON that stands in the clear: the answer still fits a UDP packet
	most      = 16 << 10 // bytes of a node in all: an update has its record twice at most, and a message 64 KiB
	part      = 255 - len(keyPlain) - 1
	minTTL    = time.Second // of Options; a node's own may be less
	maxTTL    = 24 * time.Hour
)

// content is a node as strings of a TXT record: those that renewals leave as they are.
type content []string

// encode validates n and gives its content. Where it is too large the endpoints are left out. The error wraps registry.ErrInvalid.
func encode(n registry.Node) (content, error) {
	text, err := record.Encode(n)
	if err != nil {
		return nil, err
	}
	if len(text) <= plainMost {
		return parts(nil, keyPlain, text), nil
	}
	if z := deflate(text); len(z) <= most {
		return parts(nil, keyDeflate, z), nil
	}
	n.Endpoints = nil
	if text, err = record.Encode(n); err != nil {
		return nil, err
	}
	z := deflate(text)
	if len(z) > most {
		return nil, fmt.Errorf("%w: the metadata of %s has %d bytes when it is compressed, limit %d", registry.ErrInvalid, n.ID, len(z), most)
	}
	return parts(content{keyWithout + "=endpoints"}, keyDeflate, z), nil
}

// parts adds a text in strings of 255 bytes.
func parts(to content, key, text string) content {
	for len(text) > 0 {
		n := min(part, len(text))
		to, text = append(to, key+"="+text[:n]), text[n:]
	}
	return to
}

func deflate(text string) string {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestCompression)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return out.String()
}

func inflate(text string) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(flate.NewReader(strings.NewReader(text)), registry.MaxRecord+1))
	if err != nil {
		return nil, fmt.Errorf("%w: the record is not compressed as it says: %w", registry.ErrInvalid, err)
	}
	return out, nil
}

// txt is a TXT record of ours as it was read.
type txt struct {
	rr    *wire.TXT
	owner string
	ttl   time.Duration
	until time.Time
	text  string // the node's JSON, as it stands
	node  registry.Node
}

// renewal tells one renewal of a record from the next, and from another owner's.
func (t *txt) renewal() string { return t.owner + " " + strconv.FormatInt(t.until.UnixMilli(), 10) }

// write gives the record for a content.
func write(name, owner string, ttl time.Duration, until time.Time, c content) *wire.TXT {
	head := content{
		keyFormat + "=" + format, keyOwner + "=" + owner,
		keyTTL + "=" + strconv.FormatInt(ttl.Milliseconds(), 10), keyUntil + "=" + strconv.FormatInt(until.UnixMilli(), 10),
	}
	rr := &wire.TXT{Hdr: header(name, wire.TypeTXT, ttl)}
	for _, s := range append(head, c...) {
		rr.Txt = append(rr.Txt, escape(s))
	}
	return rr
}

// read reads a record. The node's JSON is what known, which may be nil, gives for the very same strings. The error wraps registry.ErrInvalid.
func read(rr *wire.TXT, known func(text string) (registry.Node, bool)) (*txt, error) {
	pairs := map[string]string{}
	var data strings.Builder
	coded := ""
	for _, s := range rr.Txt {
		key, value, ok := strings.Cut(unescape(s), "=")
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: a TXT record that is no node's", registry.ErrInvalid)
		case key == keyPlain || key == keyDeflate:
			if coded != "" && coded != key {
				return nil, fmt.Errorf("%w: a TXT record that is both in the clear and compressed", registry.ErrInvalid)
			}
			coded = key
			data.WriteString(value)
		default:
			pairs[key] = value
		}
	}
	ttl, err1 := strconv.ParseInt(pairs[keyTTL], 10, 64)
	until, err2 := strconv.ParseInt(pairs[keyUntil], 10, 64)
	if pairs[keyFormat] != format || coded == "" || err1 != nil || err2 != nil || ttl <= 0 || ttl > maxTTL.Milliseconds() || until < 0 || len(pairs[keyOwner]) == 0 {
		return nil, fmt.Errorf("%w: a TXT record that is no node's", registry.ErrInvalid)
	}
	t := &txt{rr: rr, owner: pairs[keyOwner], ttl: time.Duration(ttl) * time.Millisecond, until: time.UnixMilli(until), text: data.String()}
	if known != nil {
		if n, ok := known(t.text); ok {
			t.node = n
			return t, nil
		}
	}
	text := []byte(t.text)
	if coded == keyDeflate {
		var err error
		if text, err = inflate(t.text); err != nil {
			return nil, err
		}
	}
	var err error
	if t.node, err = record.Decode(text); err != nil {
		return nil, err
	}
	return t, nil
}

// header gives a record's header. What may be renewed soon is kept for a short time by who passes it on.
func header(name string, kind uint16, ttl time.Duration) wire.RR_Header {
	keep := min(max(ttl/6, time.Second), 5*time.Second)
	return wire.RR_Header{Name: name, Rrtype: kind, Class: wire.ClassINET, Ttl: uint32(keep / time.Second)}
}

// escape writes bytes as package dns has them in strings of records.
func escape(s string) string {
	var out strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out.WriteByte('\\')
			out.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&out, `\%03d`, c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// unescape is escape's opposite.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		if i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 10, 8); err == nil {
				out, i = append(out, byte(n)), i+3
				continue
			}
		}
		i++
		out = append(out, s[i])
	}
	return string(out)
}
