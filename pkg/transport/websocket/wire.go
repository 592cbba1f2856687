package websocket

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The binary form of a message is one frame of the HTTP transport (docs/protocol.md), whole: a header of 16 bytes, metadata, body.
const (
	headerSize = 16
	readPart   = 64 << 10 // bytes of a body for which there is storage before any came
)

// appendBinary appends m as it stands on the wire.
func appendBinary(dst []byte, m *transport.Message) []byte {
	dst = slices.Grow(dst, headerSize+len(m.Header)+len(m.Body))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Body)))
	dst = binary.BigEndian.AppendUint32(dst, m.ID)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.Header)))
	dst = append(dst, byte(m.Kind), 0)
	dst = binary.BigEndian.AppendUint32(dst, microseconds(m.Timeout))
	dst = append(dst, m.Header...)
	return append(dst, m.Body...)
}

// microseconds gives d rounded up, at most what the field holds; a negative d is the shortest time, since zero is none.
func microseconds(d time.Duration) uint32 {
	switch {
	case d == 0:
		return 0
	case d < 0:
		return 1
	}
	return uint32(min((uint64(d)+999)/1000, math.MaxUint32))
}

// readBinary reads a message from r, which ends with it, into m's storage. The error wraps transport.ErrTooLarge where the body is
// over the limit: m then has all else, and the body has been skipped.
func readBinary(r io.Reader, m *transport.Message, limit int) error {
	var head [headerSize]byte
	m.Reset()
	if err := readFull(r, head[:]); err != nil {
		return err
	}
	body, section := int64(binary.BigEndian.Uint32(head[:])), int(binary.BigEndian.Uint16(head[8:]))
	m.ID, m.Kind = binary.BigEndian.Uint32(head[4:]), transport.Kind(head[10])
	m.Timeout = time.Duration(binary.BigEndian.Uint32(head[12:])) * time.Microsecond
	switch {
	case m.Kind < transport.Call || m.Kind > transport.Opened:
		return fmt.Errorf("%w: message of unknown kind %d", transport.ErrProtocol, m.Kind)
	case head[11] != 0:
		return fmt.Errorf("%w: message with flags %#x: a message has one frame", transport.ErrProtocol, head[11])
	case section > metadata.MaxSize:
		return fmt.Errorf("%w: %d bytes of metadata, limit %d", transport.ErrProtocol, section, metadata.MaxSize)
	}
	m.Header = slices.Grow(m.Header, section)[:section]
	if err := readFull(r, m.Header); err != nil {
		return err
	}
	if _, err := metadata.Parse(m.Header); err != nil {
		return fmt.Errorf("%w: metadata of a %s: %w", transport.ErrProtocol, m.Kind, err)
	}
	if body > int64(limit) {
		n, err := io.Copy(io.Discard, io.LimitReader(r, body))
		if err == nil && n < body {
			err = errShort
		}
		if err == nil {
			err = end(r)
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: %s with a body of %d bytes, limit %d", transport.ErrTooLarge, m.Kind, body, limit)
	}
	var err error
	if m.Body, err = readBody(r, m.Body, int(body)); err != nil {
		return err
	}
	return end(r)
}

// readBody reads n bytes, for which storage grows with what came.
func readBody(r io.Reader, dst []byte, n int) ([]byte, error) {
	for n > 0 {
		part := min(n, max(readPart, len(dst), cap(dst)-len(dst)))
		dst = slices.Grow(dst, part)
		at := len(dst)
		dst = dst[:at+part]
		if err := readFull(r, dst[at:]); err != nil {
			return dst[:at], err
		}
		n -= part
	}
	return dst, nil
}

var errShort = fmt.Errorf("%w: a message is shorter than it says", transport.ErrProtocol)

func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // of io.ReadFull itself: the WebSocket's message has ended
		return errShort
	}
	return err
}

// end checks that the WebSocket's message ends here, which also has to be seen before the next can be read.
func end(r io.Reader) error {
	var one [1]byte
	switch n, err := r.Read(one[:]); {
	case n > 0:
		return fmt.Errorf("%w: a message is longer than it says", transport.ErrProtocol)
	case err == io.EOF: //nolint:errorlint // the reader's own
		return nil
	default:
		return err
	}
}
