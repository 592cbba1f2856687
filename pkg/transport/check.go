package transport

import (
	"fmt"

	"github.com/cb02dfca/micro/pkg/metadata"
)

// MaxMessage is the limit of a message's body where an option does not say otherwise: 4 MiB.
const MaxMessage = 4 << 20

// Check reports whether m can be sent: a body of at most maxBody bytes, and a header that is an encoded metadata.MD
// within its limits. Backends call it at the start of Send. The error wraps ErrTooLarge where something is over its
// limit, and ErrNotSent where the header is malformed; either way nothing was sent and the connection lives on.
func Check(m *Message, maxBody int) error {
	if len(m.Body) > maxBody {
		return fmt.Errorf("%w: body of %d bytes, limit %d", ErrTooLarge, len(m.Body), maxBody)
	}
	if len(m.Header) == 0 {
		return nil
	}
	if len(m.Header) > metadata.MaxSize {
		return fmt.Errorf("%w: header of %d bytes, limit %d", ErrTooLarge, len(m.Header), metadata.MaxSize)
	}
	if _, err := metadata.Parse(m.Header); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	return nil
}
