package http

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
)

// The keys of a call that carries a batch, and of its reply.
const (
	mdSubscription = "micro-subscription" // request: the id of the node that the messages are for
	mdAck          = "micro-ack"          // reply: that id again, by which a publisher knows who has answered
	mdError        = "micro-error"        // reply: the error of a batch none of which was handled
)

// contentBatch is the content type of a batch.
const contentBatch = "application/vnd.micro.batch"

// The limits of a batch. A message that is larger than maxFramed with its header is posted.
const (
	batchBytes    = 240 << 10 // of messages
	batchMessages = 4096
	maxFramed     = 1 << 20
)

// What follows in a message of a segment.
const (
	withHeader = 1 << iota // its header; without it: that of the message before it
	withID                 // its id; without it: the segment's base and a number
)

// segment is encoded messages of one Publish, and one or more segments are the body of a batch. It is not changed once
// it is made: several subscribers' calls read it at the same time.
type segment struct {
	data  []byte
	count int
}

// framed reports whether batches can carry the messages.
func (p *publication) framed() bool {
	for _, m := range p.ms {
		if len(m.Body)+len(m.Header) > maxFramed {
			return false
		}
	}
	return true
}

// segments encodes the messages from first to end, in parts of about the same size. mu is held.
func (p *publication) segments(first, end int) []segment {
	total := 0
	for _, m := range p.ms[first:end] {
		total += sizeOf(m)
	}
	parts := (total + batchBytes - 1) / batchBytes
	each := total/max(parts, 1) + 1
	segs := make([]segment, 0, parts)
	for first < end {
		size, next := 0, first
		for next < end && next-first < batchMessages && (next == first || size < each && size+sizeOf(p.ms[next]) <= batchBytes) {
			size += sizeOf(p.ms[next])
			next++
		}
		segs = append(segs, p.segment(first, next, size))
		first = next
	}
	return segs
}

// sizeOf is about what m takes in a segment.
func sizeOf(m *broker.Message) int { return len(m.Body) + 4 }

// segment encodes the messages from first to end, whose bodies have size bytes.
func (p *publication) segment(first, end, size int) segment {
	n, base := end-first, p.b.series.Base()
	room := p.room(size + len(p.ms[first].Header) + len(base) + 64)
	data := *room
	data = binary.AppendUvarint(data, uint64(n))
	data = appendText(data, base)
	data = binary.AppendUvarint(data, p.first+uint64(p.at.Of(first)))
	var header metadata.MD
	for i := first; i < end; i++ {
		m := p.ms[i]
		flags := byte(0)
		if string(m.Header) != string(header) {
			flags |= withHeader
		}
		if m.ID != "" || p.at != nil {
			flags |= withID
		}
		data = append(data, flags)
		if flags&withHeader != 0 {
			header = m.Header
			data = appendText(data, header)
		}
		if flags&withID != 0 {
			data = appendText(data, p.id(i))
		}
		data = appendText(data, m.Body)
	}
	*room = data
	return segment{data: data, count: n}
}

// rooms are storages of segments that nobody reads any more.
var rooms = sync.Pool{New: func() any { return new([]byte) }}

// room gives storage for a segment of about size bytes. mu is held.
func (p *publication) room(size int) *[]byte {
	r := rooms.Get().(*[]byte)
	*r = slices.Grow((*r)[:0], size)
	p.rooms = append(p.rooms, r)
	return r
}

// release lets the storage of the segments be used again, unless a connection may still read them. The Publish is over.
func (p *publication) release() {
	if p.kept.Load() {
		return
	}
	for _, r := range p.rooms {
		giveRoom(r)
	}
}

func giveRoom(r *[]byte) {
	if cap(*r) <= 2*batchBytes {
		rooms.Put(r)
	}
}

func appendText[T string | []byte | metadata.MD](dst []byte, text T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}

// reader takes an encoded batch or reply apart.
type reader struct{ rest []byte }

var errShort = errors.New("it is cut off")

func (r *reader) number() (uint64, error) {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		return 0, errShort
	}
	r.rest = r.rest[size:]
	return n, nil
}

// text gives the next text, of max bytes at most, which may be appended to without harm.
func (r *reader) text(max int) ([]byte, error) {
	n, size := length(r.rest)
	switch {
	case size <= 0 || n > uint64(len(r.rest)-size):
		return nil, errShort
	case n > uint64(max):
		return nil, fmt.Errorf("%d bytes where %d may be", n, max)
	}
	end := size + int(n)
	text := r.rest[size:end:end]
	r.rest = r.rest[end:]
	return text, nil
}

// length is binary.Uvarint, at less cost for one byte or two, as most are.
func length(data []byte) (n uint64, size int) {
	if len(data) > 1 {
		if data[0] < 0x80 {
			return uint64(data[0]), 1
		}
		if data[1] < 0x80 {
			return uint64(data[0]&0x7f) | uint64(data[1])<<7, 2
		}
	}
	return binary.Uvarint(data)
}

// decodeBatch takes a batch apart, whose storage becomes the messages', which are appended to ms.
func decodeBatch(ms []broker.Message, data []byte, topic string, limit int) ([]broker.Message, error) {
	r := &reader{rest: data}
	for len(r.rest) > 0 {
		n, err := r.number()
		if err != nil {
			return nil, err
		}
		if n > uint64(len(r.rest)/2) || n > batchMessages || len(ms)+int(n) > 2*batchMessages {
			return nil, fmt.Errorf("%d messages are too many for it", uint64(len(ms))+n)
		}
		if had := len(ms); had > 0 && cap(ms)-had < int(n) { // once for all that follow, if they are of about the same size
			alike := had * len(r.rest) / (len(data) - len(r.rest))
			ms = slices.Grow(ms, int(n)+min(alike, 3*had))
		}
		if ms, err = r.segment(ms, int(n), topic, limit); err != nil {
			return nil, err
		}
	}
	return ms, nil
}

// segment reads the n messages of one segment.
func (r *reader) segment(ms []broker.Message, n int, topic string, limit int) ([]broker.Message, error) {
	base, err := r.text(broker.MaxID)
	if err != nil {
		return nil, err
	}
	first, err := r.number()
	if err != nil {
		return nil, err
	}
	ids := delivery.NewIDText(string(base), first)
	var header metadata.MD
	had := len(ms)
	ms = slices.Grow(ms, n)[:had+n]
	for i := range n {
		if len(r.rest) == 0 {
			return nil, errShort
		}
		flags := r.rest[0]
		r.rest = r.rest[1:]
		if flags&^(withHeader|withID) != 0 {
			return nil, fmt.Errorf("flags %#x of a message", flags)
		}
		if flags&withHeader != 0 {
			if header, err = r.header(); err != nil {
				return nil, err
			}
		}
		var id string
		if flags&withID != 0 {
			own, err := r.text(broker.MaxID)
			if err != nil {
				return nil, err
			}
			id = string(own)
			ids.Skip()
		} else {
			id = ids.Next(n - i)
		}
		body, err := r.text(limit)
		if err != nil {
			return nil, err
		}
		ms[had+i] = broker.Message{Topic: topic, ID: id, Header: header, Body: body}
	}
	return ms, nil
}

func (r *reader) header() (metadata.MD, error) {
	text, err := r.text(metadata.MaxSize)
	if err != nil {
		return nil, err
	}
	return metadata.Parse(text)
}

// encodeOutcomes gives the reply to a batch: empty where all were acknowledged, else each run of messages that fared
// alike, and did not do well: how many are between it and the run before, how many are in it, and the error, which tell
// gives.
func encodeOutcomes(outs []delivery.Outcome, tell func(first, end int) *status.Error) []byte {
	var data []byte
	known := 0
	for i := 0; i < len(outs); {
		j := i + 1
		for j < len(outs) && outs[j].Alike(outs[i]) {
			j++
		}
		if outs[i].Err != nil {
			text := tell(i, j).AppendJSON(nil)
			data = binary.AppendUvarint(data, uint64(i-known))
			data = binary.AppendUvarint(data, uint64(j-i))
			data = appendText(data, text)
			known = j
		}
		i = j
	}
	return data
}

// decodeOutcomes reads a reply to n messages; nil is that all were acknowledged.
func decodeOutcomes(data []byte, n int) ([]delivery.Outcome, error) {
	if len(data) == 0 {
		return nil, nil
	}
	outs := make([]delivery.Outcome, n)
	r := &reader{rest: data}
	for at := 0; len(r.rest) > 0; {
		skip, err := r.number()
		if err != nil {
			return nil, err
		}
		count, err := r.number()
		if err != nil {
			return nil, err
		}
		text, err := r.text(maxAnswer)
		if err != nil {
			return nil, err
		}
		if skip > uint64(n-at) || count == 0 || count > uint64(n-at)-skip {
			return nil, errors.New("it tells of more messages than were sent")
		}
		out := judge(status.Parse(string(text)))
		at += int(skip)
		for range count {
			outs[at] = out
			at++
		}
	}
	return outs, nil
}
