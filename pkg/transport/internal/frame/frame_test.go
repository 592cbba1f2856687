package frame_test

import (
	"bytes"
	"errors"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// store lends nothing, and spoils what it gets: it may be used by others from then on.
type store struct{}

func (store) Body(int) []byte { return nil }

func (store) Keep(b []byte) {
	b = b[:cap(b)]
	for i := range b {
		b[i] = 0xee
	}
}

// wire gives a frame as it stands on the wire.
func wire(h frame.Header, section, body []byte) []byte {
	h.Section, h.Body = uint16(len(section)), uint32(len(body))
	return append(append(h.Append(nil), section...), body...)
}

// feed gives the messages in data, which is fed in pieces of step bytes.
func feed(a *frame.Assembler, data []byte, step int) ([]transport.Message, error) {
	var got []transport.Message
	for len(data) > 0 {
		n, complete, err := a.Feed(data[:min(step, len(data))])
		if err != nil {
			return got, err
		}
		data = data[n:]
		if complete {
			var m transport.Message
			if err := a.Take(&m); err != nil {
				return got, err
			}
			got = append(got, m)
		}
	}
	return got, nil
}

func TestHeaderOnTheWire(t *testing.T) {
	t.Parallel()
	h := frame.Header{Body: 0x0102, ID: 0x03040506, Section: 0x0708, Kind: transport.Data, Flags: frame.More, Timeout: 0x0a0b0c0d}
	want := []byte{0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 1, 0x0a, 0x0b, 0x0c, 0x0d}
	got := h.Append(nil)
	if !bytes.Equal(got, want) {
		t.Fatalf("got % x, want % x", got, want)
	}
	back, err := frame.Parse(got)
	if err != nil || back != h {
		t.Fatalf("Parse gave %+v, %v", back, err)
	}
}

// TestDocumentedFrame holds the example of docs/protocol.md.
func TestDocumentedFrame(t *testing.T) {
	t.Parallel()
	data := []byte{0, 0, 0, 0x0f, 0, 0, 0, 1, 0, 0x39, 1, 0, 0, 0x0f, 0x42, 0x40}
	data = append(data, "\x0emicro-endpoint\x00\x09Say.Hello\x0ccontent-type\x00\x10application/json{\"name\":\"John\"}"...)
	got, err := feed(frame.NewAssembler(100, store{}), data, len(data))
	if err != nil || len(got) != 1 {
		t.Fatalf("%d messages, %v", len(got), err)
	}
	m := got[0]
	if m.Kind != transport.Call || m.ID != 1 || m.Timeout != time.Second || string(m.Body) != `{"name":"John"}` ||
		m.Header.Get(transport.HeaderEndpoint) != "Say.Hello" || m.Header.Get(transport.HeaderContentType) != "application/json" {
		t.Fatalf("got %+v", m)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		d    time.Duration
		want uint32
	}{
		{0, 0}, {-time.Second, 1}, {1, 1}, {time.Microsecond, 1}, {time.Microsecond + 1, 2}, {time.Second, 1_000_000},
		{time.Hour, 3_600_000_000}, {72 * time.Minute, math.MaxUint32}, {math.MaxInt64, math.MaxUint32},
	} {
		if got := frame.Timeout(test.d); got != test.want {
			t.Errorf("Timeout(%s) = %d, want %d", test.d, got, test.want)
		}
	}
	if got := frame.Duration(math.MaxUint32); got < 71*time.Minute || got > 72*time.Minute {
		t.Errorf("the longest timeout is %s", got)
	}
}

func TestRefusedHeaders(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]frame.Header{
		"kind 0":                {Kind: 0},
		"kind 11":               {Kind: 11},
		"4 GiB":                 {Kind: transport.Call, Body: math.MaxUint32},
		"one byte over":         {Kind: transport.Call, Body: frame.MaxBody + 1},
		"metadata over":         {Kind: transport.Call, Section: frame.MaxSection + 1},
		"unknown flag":          {Kind: transport.Call, Flags: 8},
		"continue with header":  {Kind: transport.Call, Flags: frame.Cont, Section: 5},
		"continue with timeout": {Kind: transport.Call, Flags: frame.Cont, Timeout: 5},
		"abort alone":           {Kind: transport.Call, Flags: frame.Abort},
		"abort with more":       {Kind: transport.Call, Flags: frame.Abort | frame.Cont | frame.More},
		"abort with body":       {Kind: transport.Call, Flags: frame.Abort | frame.Cont, Body: 1},
		"more of nothing":       {Kind: transport.Call, Flags: frame.More},
		"ping in parts":         {Kind: transport.Ping, Flags: frame.More, Body: 1},
		"continued goaway":      {Kind: transport.GoAway, Flags: frame.Cont},
	} {
		if _, err := frame.Parse(h.Append(nil)); !errors.Is(err, transport.ErrProtocol) {
			t.Errorf("%s: Parse: %v, want ErrProtocol", name, err)
		}
	}
}

func TestAssemble(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	md := metadata.Of("k", "v")
	var data []byte
	add := func(kind transport.Kind, id uint32, flags uint8, section, body []byte) {
		data = append(data, wire(frame.Header{Kind: kind, ID: id, Flags: flags}, section, body)...)
	}
	add(transport.Call, 1, frame.More, md, big[:frame.MaxBody])
	add(transport.Call, 2, 0, nil, []byte("small"))
	add(transport.Call, 3, frame.More, nil, big[:10])
	add(transport.Call, 1, frame.Cont|frame.More, nil, big[frame.MaxBody:2*frame.MaxBody])
	add(transport.Data, 1, 0, nil, []byte("same id, other kind"))
	add(transport.Call, 3, frame.Cont|frame.Abort, nil, nil)
	add(transport.Call, 1, frame.Cont, nil, big[2*frame.MaxBody:])
	add(transport.Call, 3, 0, nil, nil)
	for _, step := range []int{1, 7, 16, 4096, len(data)} {
		got, err := feed(frame.NewAssembler(len(big), store{}), data, step)
		if err != nil || len(got) != 4 {
			t.Fatalf("in pieces of %d: %d messages, %v", step, len(got), err)
		}
		if got[0].ID != 2 || got[1].Kind != transport.Data || got[2].ID != 1 || got[3].ID != 3 {
			t.Fatalf("in pieces of %d: wrong order", step)
		}
		if !bytes.Equal(got[2].Body, big) || !bytes.Equal(got[2].Header, md) {
			t.Fatalf("in pieces of %d: the large message is damaged", step)
		}
	}
}

func TestRefusedSequences(t *testing.T) {
	t.Parallel()
	more := func(id uint32) []byte {
		return wire(frame.Header{Kind: transport.Call, ID: id, Flags: frame.More}, nil, []byte("x"))
	}
	var tooMany []byte
	for id := range uint32(frame.MaxPartial + 1) {
		tooMany = append(tooMany, more(id)...)
	}
	for name, data := range map[string][]byte{
		"continues nothing":    wire(frame.Header{Kind: transport.Call, ID: 1, Flags: frame.Cont}, nil, []byte("x")),
		"continues other kind": append(more(1), wire(frame.Header{Kind: transport.Data, ID: 1, Flags: frame.Cont}, nil, []byte("x"))...),
		"begins twice":         append(more(1), more(1)...),
		"too many at a time":   tooMany,
		"broken metadata":      wire(frame.Header{Kind: transport.Call, ID: 1}, []byte{9, 'x'}, nil),
		"upper-case metadata":  wire(frame.Header{Kind: transport.Call, ID: 1}, []byte{1, 'X', 0, 0}, nil),
	} {
		if _, err := feed(frame.NewAssembler(1000, store{}), data, 5); !errors.Is(err, transport.ErrProtocol) {
			t.Errorf("%s: %v, want ErrProtocol", name, err)
		}
	}
}

func TestOverLimit(t *testing.T) {
	t.Parallel()
	a := frame.NewAssembler(100, store{})
	md := metadata.Of("k", "v")
	data := wire(frame.Header{Kind: transport.Call, ID: 5, Flags: frame.More}, md, make([]byte, 60))
	data = append(data, wire(frame.Header{Kind: transport.Call, ID: 5, Flags: frame.Cont}, nil, make([]byte, 41))...)
	for len(data) > 0 {
		n, complete, err := a.Feed(data)
		if err != nil {
			t.Fatal(err)
		}
		data = data[n:]
		if complete != (len(data) == 0) {
			t.Fatalf("complete is %t with %d bytes to come", complete, len(data))
		}
	}
	var m transport.Message
	if err := a.Take(&m); !errors.Is(err, transport.ErrTooLarge) {
		t.Fatalf("Take: %v, want ErrTooLarge", err)
	}
	if m.ID != 5 || m.Kind != transport.Call || m.Header.Get("k") != "v" || len(m.Body) != 0 {
		t.Fatalf("the message that was skipped: %+v", m)
	}
	got, err := feed(a, wire(frame.Header{Kind: transport.Call, ID: 6}, nil, make([]byte, 100)), 9)
	if err != nil || len(got) != 1 || len(got[0].Body) != 100 {
		t.Fatalf("the next message: %v, %v", got, err)
	}
}

func TestOldest(t *testing.T) {
	t.Parallel()
	a := frame.NewAssembler(1000, store{})
	step := func(clock time.Duration, data []byte) {
		a.Clock = clock
		if _, _, err := a.Feed(data); err != nil {
			t.Fatal(err)
		}
	}
	first := wire(frame.Header{Kind: transport.Call, ID: 1, Flags: frame.More}, nil, []byte("x"))
	step(5, first[:3])
	if a.Between() || a.Oldest() != 5 {
		t.Fatalf("within a header: between %t, oldest %d", a.Between(), a.Oldest())
	}
	step(6, first[3:])
	step(7, wire(frame.Header{Kind: transport.Call, ID: 2, Flags: frame.More}, nil, []byte("x")))
	if a.Between() || a.Oldest() != 5 {
		t.Fatalf("between the frames of two messages: between %t, oldest %d", a.Between(), a.Oldest())
	}
	step(8, wire(frame.Header{Kind: transport.Call, ID: 1, Flags: frame.Cont | frame.Abort}, nil, nil))
	if a.Oldest() != 7 {
		t.Fatalf("after the first was aborted: oldest %d, want 7", a.Oldest())
	}
}

// FuzzAssembler: any bytes give the same messages in whatever pieces they come, hold no more than they may, and what
// comes out fits the limits.
func FuzzAssembler(f *testing.F) {
	f.Add([]byte{}, 1)
	f.Add(wire(frame.Header{Kind: transport.Call, ID: 1, Timeout: 9}, metadata.Of("k", "v"), []byte("body")), 3)
	f.Add(wire(frame.Header{Kind: transport.Ping, ID: 1}, nil, nil), 16)
	parts := wire(frame.Header{Kind: transport.Data, ID: 1, Flags: frame.More}, nil, []byte("one"))
	parts = append(parts, wire(frame.Header{Kind: transport.Reply, ID: 1}, nil, []byte("between"))...)
	parts = append(parts, wire(frame.Header{Kind: transport.Data, ID: 1, Flags: frame.Cont}, nil, []byte("two"))...)
	f.Add(parts, 5)
	f.Add(frame.Header{Kind: transport.Call, Body: math.MaxUint32}.Append(nil), 2)
	f.Add(wire(frame.Header{Kind: transport.Call, ID: 1, Flags: frame.Cont | frame.Abort}, nil, nil), 1)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		const limit = 64
		step = max(1, step&0xff)
		all := func(step int) (got []transport.Message, failed string) {
			a := frame.NewAssembler(limit, store{})
			for rest := data; len(rest) > 0; {
				n, complete, err := a.Feed(rest[:min(step, len(rest))])
				if err != nil {
					if !errors.Is(err, transport.ErrProtocol) {
						t.Fatalf("Feed: %v, want ErrProtocol", err)
					}
					return got, err.Error()
				}
				if n == 0 {
					t.Fatal("Feed took nothing")
				}
				rest = rest[n:]
				if !complete {
					continue
				}
				var m transport.Message
				if err := a.Take(&m); err != nil && !errors.Is(err, transport.ErrTooLarge) {
					t.Fatalf("Take: %v", err)
				}
				if _, err := metadata.Parse(m.Header); err != nil || len(m.Body) > limit {
					t.Fatalf("a message over the limits: %+v, %v", m, err)
				}
				got = append(got, m)
			}
			return got, ""
		}
		whole, failed := all(max(1, len(data)))
		pieces, failedToo := all(step)
		if failed != failedToo || len(whole) != len(pieces) {
			t.Fatalf("whole: %d messages, %q; in pieces of %d: %d messages, %q", len(whole), failed, step, len(pieces), failedToo)
		}
		for i := range whole {
			w, p := whole[i], pieces[i]
			if w.Kind != p.Kind || w.ID != p.ID || w.Timeout != p.Timeout || !bytes.Equal(w.Header, p.Header) || !bytes.Equal(w.Body, p.Body) {
				t.Fatalf("message %d differs: %+v and %+v", i, w, p)
			}
		}
	})
}

// TestMemoryGrowsWithBytes: a header that promises much costs nothing until it comes.
func TestMemoryGrowsWithBytes(t *testing.T) {
	var before, after runtime.MemStats
	many := make([]*frame.Assembler, 1000)
	runtime.ReadMemStats(&before)
	promise := frame.Header{Kind: transport.Call, ID: 1, Body: frame.MaxBody, Section: frame.MaxSection}.Append(nil)
	for i := range many {
		many[i] = frame.NewAssembler(4<<20, store{})
		if _, _, err := many[i].Feed(promise); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / uint64(len(many)); each > 2<<10 {
		t.Fatalf("a connection of which only a header came holds %d bytes", each)
	}
	runtime.KeepAlive(many)
}
