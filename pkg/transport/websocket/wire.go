package websocket

import (
	"fmt"
	"io"
	"slices"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// headOf gives the header of a frame with that many bytes of m's body, and m's metadata.
func headOf(m *transport.Message, body int, flags uint8) frame.Header {
	return frame.Header{
		Body: uint32(body), ID: m.ID, Section: uint16(len(m.Header)), Kind: m.Kind, Flags: flags, Timeout: frame.Timeout(m.Timeout),
	}
}

// appendFrame appends a frame as it stands on the wire.
func appendFrame(dst []byte, h frame.Header, section, body []byte) []byte {
	dst = slices.Grow(dst, frame.HeaderSize+len(section)+len(body))
	dst = append(h.Append(dst), section...)
	return append(dst, body...)
}

// readFrame has a take the one frame that a WebSocket's message from r holds, and reports whether that completes a message of ours.
// buf is for what has no other place.
func readFrame(r io.Reader, a *frame.Assembler, buf []byte) (complete bool, err error) {
	head := buf[:frame.HeaderSize]
	if err := readFull(r, head); err != nil {
		return false, err
	}
	for _, complete, err = a.Feed(head); err == nil && a.Left() > 0; {
		if space := a.Space(); len(space) > 0 {
			n, rerr := r.Read(space)
			if a.Filled(n); a.Ready() {
				_, complete, err = a.Feed(nil)
			} else if rerr != nil {
				err = early(rerr)
			}
			continue
		}
		part := buf[:min(len(buf), a.Left())]
		if err = readFull(r, part); err == nil {
			_, complete, err = a.Feed(part)
		}
	}
	if err != nil {
		return false, err
	}
	return complete, end(r)
}

var errShort = fmt.Errorf("%w: a frame is shorter than it says", transport.ErrProtocol)

func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	return early(err)
}

// early gives the error of a read for which there should have been enough.
func early(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // of the reader itself: the WebSocket's message has ended
		return errShort
	}
	return err
}

// end checks that the WebSocket's message ends here, which also has to be seen before the next can be read.
func end(r io.Reader) error {
	var one [1]byte
	switch n, err := r.Read(one[:]); {
	case n > 0:
		return fmt.Errorf("%w: a frame is longer than it says", transport.ErrProtocol)
	case err == io.EOF: //nolint:errorlint // the reader's own
		return nil
	default:
		return err
	}
}
