package main

import (
	"encoding/binary"
	"io"
	"net"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

// pingPong has one call under way on a connection, so it has a connection for each caller, whatever the cell says. A frame
// is four bytes of length and the body.
type pingPong struct{}

func (pingPong) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call {
		return worker.Place{}, worker.ErrUnfit
	}
	return accept(func(conn net.Conn) {
		f := frame{conn: conn, in: make([]byte, readBuffer)}
		for {
			body, err := f.read()
			if err != nil {
				return
			}
			if f.write(body) != nil {
				return
			}
		}
	})
}

func (pingPong) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	var ops []worker.Op
	for range c.Callers {
		conn, err := net.Dial("tcp", at.Address)
		if err != nil {
			return nil, err
		}
		f, payload := frame{conn: conn, in: make([]byte, readBuffer)}, worker.Payload(c.Payload)
		ops = append(ops, func() error {
			if err := f.write(payload); err != nil {
				return err
			}
			body, err := f.read()
			if err != nil {
				return err
			}
			return worker.Check(body, payload)
		})
	}
	return ops, nil
}

// readBuffer is what a connection reads into at once.
const readBuffer = 64 << 10

// accept serves each connection on a goroutine of its own.
func accept(serve func(net.Conn)) (worker.Place, error) {
	return worker.Listen(func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn) }()
		}
	})
}

// frame reads and writes one frame at a time, each with one system call where it is small.
type frame struct {
	conn    net.Conn
	in, out []byte
}

func (f *frame) write(body []byte) error {
	f.out = binary.LittleEndian.AppendUint32(f.out[:0], uint32(len(body)))
	f.out = append(f.out, body...)
	_, err := f.conn.Write(f.out)
	return err
}

// read gives the next frame's body, valid until the next read.
func (f *frame) read() ([]byte, error) {
	n, err := io.ReadAtLeast(f.conn, f.in, 4)
	if err != nil {
		return nil, err
	}
	size := 4 + int(binary.LittleEndian.Uint32(f.in))
	if size > len(f.in) {
		f.in = append(make([]byte, 0, size), f.in[:n]...)[:size]
	}
	if n < size {
		if _, err := io.ReadFull(f.conn, f.in[n:size]); err != nil {
			return nil, err
		}
	}
	return f.in[4:size], nil
}
