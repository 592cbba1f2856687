// Package frame is the form of messages on a connection of frames, and in the binary messages of a WebSocket: a header of 16 bytes, a section of metadata, a part
// of a body. docs/protocol.md describes it for those who write another implementation. All parsing of it is here.
package frame

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The sizes and limits of the format. They are part of the protocol, not options.
const (
	HeaderSize = 16               // bytes of a frame's header
	MaxBody    = 128 << 10        // bytes of body in one frame; a longer body is cut
	PartBody   = 64 << 10         // bytes of body in each frame but the last of one that is cut, by those who send; a receiver takes any
	MaxSection = metadata.MaxSize // bytes of a message's metadata, all in its first frame
	MaxPartial = 8                // messages that may be under way in frames at a time, each way
)

// The flags of a frame. Others are refused.
const (
	More  = 1 << iota // a frame of the same message follows
	Cont              // the frame continues a message: it has no section and no timeout
	Abort             // with Cont alone: the message will not be completed; what came of it is forgotten
)

// never stands for a timeout at least as long as the field can hold, 71 minutes.
const never = math.MaxUint32

// Header is a frame's header. Its fields stand in this order on the wire, big endian.
type Header struct {
	Body    uint32 // bytes of body in this frame
	ID      uint32
	Section uint16 // bytes of metadata in this frame
	Kind    transport.Kind
	Flags   uint8
	Timeout uint32 // microseconds; zero is none
}

// Append appends h as it stands on the wire.
func (h Header) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, h.Body)
	dst = binary.BigEndian.AppendUint32(dst, h.ID)
	dst = binary.BigEndian.AppendUint16(dst, h.Section)
	dst = append(dst, byte(h.Kind), h.Flags)
	return binary.BigEndian.AppendUint32(dst, h.Timeout)
}

// Parse reads a header and checks all that can be judged from a header alone. b has HeaderSize bytes.
// The error wraps transport.ErrProtocol.
func Parse(b []byte) (Header, error) {
	_ = b[HeaderSize-1]
	h := Header{
		Body:    binary.BigEndian.Uint32(b),
		ID:      binary.BigEndian.Uint32(b[4:]),
		Section: binary.BigEndian.Uint16(b[8:]),
		Kind:    transport.Kind(b[10]),
		Flags:   b[11],
		Timeout: binary.BigEndian.Uint32(b[12:]),
	}
	switch {
	case h.Kind < transport.Call || h.Kind > transport.Opened:
		return h, fmt.Errorf("%w: frame of unknown kind %d", transport.ErrProtocol, h.Kind)
	case h.Body > MaxBody:
		return h, fmt.Errorf("%w: frame of %d bytes, limit %d", transport.ErrProtocol, h.Body, MaxBody)
	case h.Section > MaxSection:
		return h, fmt.Errorf("%w: frame with %d bytes of metadata, limit %d", transport.ErrProtocol, h.Section, MaxSection)
	case h.Flags&^(More|Cont|Abort) != 0:
		return h, fmt.Errorf("%w: frame with unknown flags %#x", transport.ErrProtocol, h.Flags)
	case h.Flags&Cont != 0 && (h.Section != 0 || h.Timeout != 0):
		return h, fmt.Errorf("%w: continuing frame with metadata or a timeout", transport.ErrProtocol)
	case h.Flags&Abort != 0 && (h.Flags != Cont|Abort || h.Body != 0):
		return h, fmt.Errorf("%w: aborting frame with flags %#x and %d bytes", transport.ErrProtocol, h.Flags, h.Body)
	case h.Flags&More != 0 && (h.Body == 0 || !Divisible(h.Kind)):
		return h, fmt.Errorf("%w: %s frame of %d bytes that says that more follows", transport.ErrProtocol, h.Kind, h.Body)
	case h.Flags&Cont != 0 && !Divisible(h.Kind):
		return h, fmt.Errorf("%w: continuing %s frame", transport.ErrProtocol, h.Kind)
	}
	return h, nil
}

// Divisible reports whether a message of kind k may be cut into several frames.
func Divisible(k transport.Kind) bool {
	switch k {
	case transport.Call, transport.Reply, transport.Open, transport.Data, transport.End:
		return true
	}
	return false
}

// Timeout gives d as the field holds it: rounded up to a microsecond, at most 71 minutes. A negative d is the shortest
// time, since zero would be none.
func Timeout(d time.Duration) uint32 {
	switch {
	case d == 0:
		return 0
	case d < 0:
		return 1
	}
	us := (uint64(d) + uint64(time.Microsecond) - 1) / uint64(time.Microsecond)
	return uint32(min(us, never))
}

// Duration gives a timeout field as a duration.
func Duration(us uint32) time.Duration { return time.Duration(us) * time.Microsecond }
