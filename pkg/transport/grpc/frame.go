package grpc

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// A message on the wire: a byte that says whether it is packed, its length in four bytes, and the message
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
const prefixSize = 5

// keepStorage is the largest body, in bytes, whose storage is kept for the next message.
const keepStorage = 64 << 10

// packFrom is the smallest body, in bytes, that is packed: gzip adds some twenty.
const packFrom = 256

// reader reads messages.
type reader struct {
	r      io.Reader
	max    int  // bytes of a message
	gzip   bool // messages may be packed by gzip
	prefix [prefixSize]byte
	packed []byte // storage
}

// next reads a message, and appends it to dst. io.EOF says that there are no more, io.ErrUnexpectedEOF that one is cut off. The
// error wraps transport.ErrTooLarge where the message is over its limit, and is a *status.Error where it cannot be read.
func (r *reader) next(dst []byte) ([]byte, error) {
	if _, err := io.ReadFull(r.r, r.prefix[:]); err != nil {
		return dst, err
	}
	size := binary.BigEndian.Uint32(r.prefix[1:])
	if int64(size) > int64(r.max) {
		return dst, fmt.Errorf("%w: a message of %d bytes is over the limit of %d", transport.ErrTooLarge, size, r.max)
	}
	switch flag := r.prefix[0]; {
	case flag == 0:
		return readN(r.r, dst, int(size))
	case flag != 1:
		return dst, status.New(status.Internal, "a message has the flags %#x, which say nothing", flag)
	case !r.gzip:
		return dst, status.New(status.Internal, "a message is packed, and no grpc-encoding says how")
	}
	packed, err := readN(r.r, r.packed[:0], int(size))
	if r.packed = packed; cap(packed) > keepStorage {
		r.packed = nil
	}
	if err != nil {
		return dst, err
	}
	return unpack(dst, packed, r.max)
}

// stepSize is how much storage is made for a message before that much of it has come.
const stepSize = 512 << 10

// readN appends n bytes to dst. Nobody who announces a large message gets storage before he sends it.
func readN(r io.Reader, dst []byte, n int) ([]byte, error) {
	for n > 0 {
		step := min(n, stepSize)
		at := len(dst)
		if cap(dst)-at < step {
			grown := make([]byte, at, max(at+step, 2*cap(dst)))
			copy(grown, dst)
			dst = grown
		}
		dst = dst[:at+step]
		if m, err := io.ReadFull(r, dst[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return dst[:at+m], err
		}
		n -= step
	}
	return dst, nil
}

var (
	unpackers sync.Pool // of *gzip.Reader
	packers   sync.Pool // of *gzip.Writer
)

// unpack appends what packed holds, at most limit bytes, to dst.
func unpack(dst, packed []byte, limit int) ([]byte, error) {
	z, ok := unpackers.Get().(*gzip.Reader)
	if !ok {
		z = new(gzip.Reader)
	}
	defer unpackers.Put(z)
	at := len(dst)
	buf := bytes.NewBuffer(dst)
	err := z.Reset(bytes.NewReader(packed))
	if err == nil {
		_, err = buf.ReadFrom(io.LimitReader(z, int64(limit)+1))
	}
	switch {
	case err != nil:
		return dst, status.Wrap(err, status.Internal, "a message does not unpack: %v", err)
	case buf.Len()-at > limit:
		return dst, fmt.Errorf("%w: a message that unpacks to more than the limit of %d bytes", transport.ErrTooLarge, limit)
	}
	return buf.Bytes(), nil
}

// appendFrame appends a message with its prefix to dst.
func appendFrame(dst, body []byte, pack bool) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0)
	packed := dst
	if pack && len(body) >= packFrom {
		packed = appendPacked(dst, body)
	}
	if n := len(packed) - len(dst); n > 0 && n < len(body) {
		dst = packed
		dst[at] = 1
	} else { // one that does not become smaller may even pass the limit
		dst = append(dst, body...)
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-prefixSize))
	return dst
}

func appendPacked(dst, body []byte) []byte {
	z, ok := packers.Get().(*gzip.Writer)
	buf := bytes.NewBuffer(dst)
	if ok {
		z.Reset(buf)
	} else {
		z, _ = gzip.NewWriterLevel(buf, gzip.BestSpeed) // a level that there is
	}
	defer packers.Put(z)
	_, _ = z.Write(body) // a bytes.Buffer takes all
	_ = z.Close()
	return buf.Bytes()
}
