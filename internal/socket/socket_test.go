package socket_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/cb02dfca/micro/internal/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair gives both ends of a connection, and what the near one stands on.
func pair() (near, far, below net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	defer l.Close()
	if below, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, nil, err
	}
	if far, err = socket.Listener(l).Accept(); err != nil {
		_ = below.Close()
		return nil, nil, nil, err
	}
	return socket.Conn(below), far, below, nil
}

func open(t testing.TB) (near, far, below net.Conn) {
	t.Helper()
	near, far, below, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far, below
}

// TestConn: they are connections as package net's are, by the suite for those.
func TestConn(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (near, far net.Conn, stop func(), err error) {
		near, far, _, err = pair()
		return near, far, func() { _, _ = near.Close(), far.Close() }, err
	})
}

// Their errors are those of package net, to the word.
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(near, far net.Conn){
		"the time is over":         func(near, _ net.Conn) { _ = near.SetDeadline(time.Unix(1, 0)) },
		"closed":                   func(near, _ net.Conn) { _ = near.Close() },
		"the peer has closed":      func(_, far net.Conn) { _ = far.Close() },
		"the peer has broken off":  func(near, far net.Conn) { reset(near, far) },
		"the peer writes no more":  func(_, far net.Conn) { _ = tcp(far).CloseWrite() },
		"nothing is sent any more": func(near, _ net.Conn) { _ = tcp(near).CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, write := range []bool{false, true} {
				if !write && name == "nothing is sent any more" || write && (name == "the peer has closed" || name == "the peer writes no more") {
					continue // that does not end, or not at once
				}
				near, far, below := open(t)
				prepare(near, far)
				do := func(nc net.Conn) (int, error) { return nc.Read(make([]byte, 8)) }
				if write {
					do = func(nc net.Conn) (int, error) { return nc.Write(make([]byte, 8)) }
				}
				n, err := do(near)
				reference, wanted := do(below)
				if name == "the peer has broken off" { // told once
					if reset := (*net.OpError)(nil); n != 0 || !errors.As(err, &reset) || reset.Source == nil || reset.Addr == nil {
						t.Errorf("it gave %d, %#v", n, err)
					}
					continue
				}
				if n != reference || (err == io.EOF) != (wanted == io.EOF) || err == nil || err.Error() != wanted.Error() {
					t.Errorf("it gave %d, %v; package net's own %d, %v", n, err, reference, wanted)
				}
				late, other := net.Error(nil), net.Error(nil)
				if errors.As(err, &late) != errors.As(wanted, &other) || late != nil && late.Timeout() != other.Timeout() ||
					errors.Is(err, net.ErrClosed) != errors.Is(wanted, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) != errors.Is(wanted, os.ErrDeadlineExceeded) {
					t.Errorf("it gave %#v; package net's own %#v", err, wanted)
				}
			}
		})
	}
}

// tcp gives the TCP connection below nc.
func tcp(nc net.Conn) *net.TCPConn {
	if below, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = below.NetConn()
	}
	return nc.(*net.TCPConn)
}

// reset breaks far off, and waits until near has heard of it.
func reset(near, far net.Conn) {
	_, _ = near.Write([]byte("unread"))
	_, _ = far.Read(make([]byte, 1))
	_ = tcp(far).SetLinger(0)
	_ = far.Close()
}

// What is longer than the system takes at once arrives whole, also when the reader is slow.
func TestLarge(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 1 << 16, 1 << 20, 1<<20 + 1, 9 << 20} {
		near, far, _ := open(t)
		sent := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
		wrote := make(chan error, 1)
		go func() {
			n, err := near.Write(sent)
			if err == nil && n != size {
				err = io.ErrShortWrite
			}
			wrote <- errors.Join(err, near.Close())
		}()
		got, err := io.ReadAll(far)
		if err := errors.Join(err, <-wrote); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("of %d bytes %d arrived, %v", size, len(got), err)
		}
	}
}

// A write that runs out of time says how much has left.
func TestPartOfAWrite(t *testing.T) {
	t.Parallel()
	near, far, _ := open(t)
	if err := near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := near.Write(make([]byte, 64<<20))
	if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("it gave %d, %v", n, err)
	}
	_ = near.Close()
	if got, err := io.Copy(io.Discard, far); got != int64(n) || err != nil {
		t.Errorf("%d bytes left, and %d arrived, %v", n, got, err)
	}
}

func TestAllocations(t *testing.T) {
	near, far, _ := open(t)
	buf := make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = near.Write(buf)
		_, _ = io.ReadFull(far, buf)
	}); n >= 1 {
		t.Errorf("a write and a read make %v allocations", n)
	}
}
