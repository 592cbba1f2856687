package nats

import (
	"encoding/binary"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/transport"
)

// A frame is what one message of NATS carries. All numbers are big endian.
//
//	0   version, 1
//	1   type
//
// then, of a part of a message, of its end, and of the end of a connection:
//
//	2   flags
//	3   kind
//	4   number of the frame in its direction, from 1
//	8   number of the message in its direction; the frames of one have the same
//	12  id
//
// and of the first part of a message
//
//	16  timeout in microseconds
//	24  bytes of the header
//	28  bytes of the header and the body, of all parts
//	32  header and body, as far as they fit; other parts have the rest, from 16 on
//
// A credit has at 4 how many bytes were read from the connection so far.
const (
	frameVersion = 1

	sizeControl = 2
	sizePart    = 16
	sizeFirst   = 32
	sizeCredit  = 12
	overhead    = 64 // of a frame, as the window counts it: what it takes in memory beside its bytes
)

type frameType byte

// The types of frames.
const (
	frameHello   frameType = 1 + iota // to a listener: connect the subject of the reply
	frameWelcome                      // from a listener: the reply is the other end's subject
	frameRefuse                       // from a listener: no, for the reason that follows
	frameWho                          // to a listener: is there one?
	frameHere                         // from a listener: there is
	framePart                         // a part of a message
	frameBye                          // nothing more comes: the connection was closed
	frameCredit                       // so much was read
	frameReset                        // there is no such end
	frameProbe                        // is there anybody?
	frameAlive                        // there is
)

// Flags of a part.
const (
	flagMore  = 1 << iota // another part follows
	flagCont              // it is not the first
	flagAbort             // the message is given up
)

type frame struct {
	frameType
	flags   byte
	kind    transport.Kind
	seq     uint32
	message uint32
	id      uint32
	timeout time.Duration
	header  int // bytes
	total   int // bytes
	data    []byte
	tail    []byte // of a frame that is to be written: it follows upon data
	credit  uint64
}

func control(t frameType) []byte { return []byte{frameVersion, byte(t)} }

// cost is what a frame takes of the window.
func (f *frame) cost() int {
	if f.frameType != framePart || f.flags&flagAbort != 0 {
		return 0
	}
	return len(f.data) + len(f.tail) + overhead
}

// expects reports whether the sender of a frame is to be told that there is no such end.
func (f *frame) expects() bool {
	switch f.frameType {
	case frameHello, frameWelcome, framePart, frameCredit, frameProbe:
		return true
	}
	return false
}

// encode gives a part, or a bye, with room for its bytes.
func (f *frame) encode() []byte {
	size := sizePart
	if f.first() {
		size = sizeFirst
	}
	b := make([]byte, size, size+len(f.data)+len(f.tail))
	b[0], b[1], b[2], b[3] = frameVersion, byte(f.frameType), f.flags, byte(f.kind)
	binary.BigEndian.PutUint32(b[8:], f.message)
	binary.BigEndian.PutUint32(b[12:], f.id)
	if f.first() {
		micros := f.timeout.Microseconds()
		if f.timeout > 0 {
			micros = max(micros, 1)
		}
		binary.BigEndian.PutUint64(b[16:], uint64(micros))
		binary.BigEndian.PutUint32(b[24:], uint32(f.header))
		binary.BigEndian.PutUint32(b[28:], uint32(f.total))
	}
	return append(append(b, f.data...), f.tail...)
}

// number gives an encoded frame its number in its direction.
func number(b []byte, seq uint32) { binary.BigEndian.PutUint32(b[4:], seq) }

func (f *frame) first() bool { return f.frameType == framePart && f.flags&flagCont == 0 }

func encodeCredit(read uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{frameVersion, byte(frameCredit), 0, 0}, read)
}

// parse reads a frame, which keeps the storage of m.
func parse(m *nats.Msg) (frame, bool) {
	b := m.Data
	if len(b) < sizeControl || b[0] != frameVersion {
		return frame{}, false
	}
	f := frame{frameType: frameType(b[1])}
	switch f.frameType {
	case frameRefuse:
		f.data = b[sizeControl:]
	case frameCredit:
		if len(b) != sizeCredit {
			return f, false
		}
		f.credit = binary.BigEndian.Uint64(b[4:])
	case framePart, frameBye:
		if len(b) < sizePart {
			return f, false
		}
		f.flags, f.kind = b[2], transport.Kind(b[3])
		f.seq, f.message, f.id = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
		if !f.first() {
			f.data = b[sizePart:]
			break
		}
		if len(b) < sizeFirst {
			return f, false
		}
		micros := binary.BigEndian.Uint64(b[16:])
		f.timeout = time.Duration(min(micros, 1<<53)) * time.Microsecond
		f.header, f.total = int(binary.BigEndian.Uint32(b[24:])), int(binary.BigEndian.Uint32(b[28:]))
		f.data = b[sizeFirst:]
		if f.header > f.total || len(f.data) > f.total {
			return f, false
		}
	}
	return f, true
}
