package rabbitmq

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// version is that of the frames, which a hello tells.
const version = 1

// What a frame is, by its first byte: a message of the kind of that number, or one of these, which the two ends of a connection
// exchange themselves.
const (
	frameHello   = 101 // client, to the listener's address: opens a connection. version, window
	frameWelcome = 102 // server: it is open. version, window, and the queue that the server reads
	frameRefuse  = 103 // server: it is not. A text that tells why
	frameCredit  = 104 // both: how much was taken from the inbox so far
	frameBye     = 105 // both: nothing more comes
)

// A message is: 1 byte kind, 4 bytes number among the sender's messages, 4 bytes id, 8 bytes timeout in nanoseconds, 2 bytes
// length of the header, the header, the body. Numbers are big endian.
const messageHead = 1 + 4 + 4 + 8 + 2

// frameCost is what a message counts beside its bytes, against the window.
const frameCost = 256

func cost(frame []byte) uint64 { return uint64(len(frame)) + frameCost }

// appendMessage appends a message that was checked.
func appendMessage(b []byte, m *transport.Message, number uint32) []byte {
	b = append(b, byte(m.Kind))
	b = binary.BigEndian.AppendUint32(b, number)
	b = binary.BigEndian.AppendUint32(b, m.ID)
	b = binary.BigEndian.AppendUint64(b, uint64(max(m.Timeout, 0)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Header)))
	b = append(b, m.Header...)
	return append(b, m.Body...)
}

// numberOf gives a message's number.
func numberOf(frame []byte) (uint32, error) {
	if len(frame) < messageHead {
		return 0, fmt.Errorf("%w: a message of %d bytes", transport.ErrProtocol, len(frame))
	}
	return binary.BigEndian.Uint32(frame[1:]), nil
}

// readMessage reads a frame that has a number into m, whose storage it uses. One with a body over limit gives ErrTooLarge, with
// all but that.
func readMessage(frame []byte, m *transport.Message, limit int) error {
	m.Reset()
	m.Kind, m.ID = transport.Kind(frame[0]), binary.BigEndian.Uint32(frame[5:])
	if m.Kind < transport.Call || m.Kind > transport.Opened {
		return fmt.Errorf("%w: a frame of type %d", transport.ErrProtocol, m.Kind)
	}
	timeout := binary.BigEndian.Uint64(frame[9:])
	if timeout > 1<<62 {
		return fmt.Errorf("%w: a timeout of %d ns", transport.ErrProtocol, timeout)
	}
	m.Timeout = time.Duration(timeout)
	n, rest := int(binary.BigEndian.Uint16(frame[17:])), frame[messageHead:]
	if n > len(rest) {
		return fmt.Errorf("%w: a header of %d bytes in %d", transport.ErrProtocol, n, len(rest))
	}
	if _, err := metadata.Parse(rest[:n]); err != nil {
		return fmt.Errorf("%w: %w", transport.ErrProtocol, err)
	}
	m.Header = append(m.Header, rest[:n]...)
	if len(rest)-n > limit {
		return fmt.Errorf("%w: body of %d bytes, limit %d", transport.ErrTooLarge, len(rest)-n, limit)
	}
	m.Body = append(m.Body, rest[n:]...)
	return nil
}

func hello(window uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{frameHello, version}, window)
}

func welcome(window uint32, queue string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{frameWelcome, version}, window), queue...)
}

// readHello reads a hello or a welcome.
func readHello(frame []byte) (window uint32, queue string, err error) {
	switch {
	case len(frame) < 6:
		return 0, "", fmt.Errorf("%w: a greeting of %d bytes", transport.ErrProtocol, len(frame))
	case frame[1] != version:
		return 0, "", fmt.Errorf("%w: the peer speaks version %d of the frames, this one %d", transport.ErrProtocol, frame[1], version)
	}
	window, queue = binary.BigEndian.Uint32(frame[2:]), string(frame[6:])
	if window == 0 {
		return 0, "", fmt.Errorf("%w: a window of 0 bytes", transport.ErrProtocol)
	}
	return window, queue, nil
}

func credit(taken uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{frameCredit}, taken)
}

func readCredit(frame []byte) (uint64, error) {
	if len(frame) != 9 {
		return 0, fmt.Errorf("%w: a credit of %d bytes", transport.ErrProtocol, len(frame))
	}
	return binary.BigEndian.Uint64(frame[1:]), nil
}
