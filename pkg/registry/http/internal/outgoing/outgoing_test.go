package outgoing_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry/http/internal/outgoing"
)

func piece(size int) [][]byte { return [][]byte{make([]byte, size)} }

func TestATextCountsOnce(t *testing.T) {
	t.Parallel()
	l := outgoing.New(1000, time.Second)
	builds := 0
	build := func() [][]byte {
		return [][]byte{l.Share("key", func() []byte { builds++; return make([]byte, 100) }), {'\n'}}
	}
	var lines []*outgoing.Line
	for range 5 {
		line, err := l.Queue(t.Context(), nil, build)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if l.Held() != 105 || builds != 1 {
		t.Errorf("%d bytes, %d builds", l.Held(), builds)
	}
	part := l.Hold(nil, [][]byte{lines[0].Pieces[0][1:]}) // as the first part of a list
	for _, line := range append(lines, part) {
		if !line.Done() {
			t.Error("a line was ended")
		}
	}
	if line, err := l.Queue(t.Context(), nil, build); err != nil || builds != 2 || !line.Done() || l.Held() != 0 {
		t.Errorf("%v, %d builds, %d bytes", err, builds, l.Held())
	}
	if line, err := l.Queue(t.Context(), nil, func() [][]byte { return nil }); line != nil || err != nil {
		t.Error("a line of nothing")
	}
}

// TestRoom: who is queued waits, until the one who takes longest has had his time or is done, or his own context ends.
func TestRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := outgoing.New(1000, time.Second)
		var ended []string
		end := func(name string) func() { return func() { ended = append(ended, name) } }
		begun := time.Now()
		slow := l.Hold(end("slow"), piece(300))
		time.Sleep(100 * time.Millisecond)
		quick := l.Hold(end("quick"), piece(300))
		other := l.Hold(end("other"), piece(300))
		more := l.Hold(end("more"), piece(300))
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := l.Queue(short, nil, func() [][]byte { return piece(10) }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("there was room: %v", err)
		}
		if _, err := l.Queue(t.Context(), nil, func() [][]byte { return piece(200) }); err != nil || time.Since(begun) != time.Second {
			t.Errorf("%v, after %v", err, time.Since(begun))
		}
		if slow.Done() || len(ended) != 1 || ended[0] != "slow" || l.Ended() != 1 {
			t.Errorf("ended %v", ended)
		}
		go func() {
			time.Sleep(50 * time.Millisecond)
			quick.Done()
		}()
		if line, err := l.Queue(t.Context(), nil, func() [][]byte { return piece(10) }); err != nil || time.Since(begun) != 1050*time.Millisecond || !line.Done() {
			t.Errorf("%v, after %v", err, time.Since(begun))
		}
		if !other.Done() || !more.Done() || len(ended) != 1 || l.Held() != 200 {
			t.Errorf("ended %v, held %d", ended, l.Held())
		}
	})
}

// TestHard: at twice the limit the oldest are ended at once, but never a line for its own size.
func TestHard(t *testing.T) {
	t.Parallel()
	l := outgoing.New(1000, time.Hour)
	ended := 0
	end := func() { ended++ }
	for range 100 {
		l.Hold(end, piece(300))
	}
	if l.Held() > 2000 || ended != 94 {
		t.Errorf("held %d, ended %d", l.Held(), ended)
	}
	big := l.Hold(end, piece(5000)) // three of which may be queued now
	for range 3 {
		l.Hold(end, piece(5000))
	}
	if !big.Done() || ended != 94 {
		t.Errorf("ended %d", ended)
	}
}
