package nats

import (
	"bytes"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/transport"
)

func TestFrame(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]frame{
		"a message": {frameType: framePart, kind: transport.Call, seq: 7, message: 3, id: 9, timeout: 1500 * time.Millisecond, header: 2, total: 5, data: []byte("abcde")},
		"its first": {frameType: framePart, flags: flagMore, kind: transport.Data, seq: 1, message: 1, id: 1 << 31, header: 0, total: 500, data: []byte("abcde")},
		"its last":  {frameType: framePart, flags: flagCont, kind: transport.Data, seq: 1<<32 - 1, message: 1, id: 9, data: []byte("x")},
		"an end":    {frameType: frameBye, seq: 8},
	} {
		data := f.encode()
		number(data, f.seq)
		if got, ok := parse(&nats.Msg{Data: data}); !ok || !same(got, f) {
			t.Errorf("%s came as %+v, %t", name, got, ok)
		}
	}
	if got, ok := parse(&nats.Msg{Data: encodeCredit(1 << 40)}); !ok || got.frameType != frameCredit || got.credit != 1<<40 {
		t.Errorf("a credit came as %+v, %t", got, ok)
	}
}

func same(a, b frame) bool {
	data := bytes.Equal(a.data, b.data)
	a.data, b.data = nil, nil
	return data && a.frameType == b.frameType && a.flags == b.flags && a.kind == b.kind && a.seq == b.seq && a.message == b.message &&
		a.id == b.id && a.timeout == b.timeout && a.header == b.header && a.total == b.total
}

// FuzzParse: whatever comes is no frame, or is one that is written the same way.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(control(frameProbe))
	f.Add(encodeCredit(1000))
	f.Add((&frame{frameType: framePart, kind: transport.Call, header: 1, total: 3, data: []byte("abc")}).encode())
	f.Add((&frame{frameType: framePart, flags: flagCont | flagMore, data: []byte("abc")}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := parse(&nats.Msg{Data: data})
		if !ok || got.frameType != framePart && got.frameType != frameBye {
			return
		}
		again := got.encode()
		number(again, got.seq)
		if back, ok := parse(&nats.Msg{Data: again}); !ok || !same(back, got) {
			t.Errorf("%x is %+v, and written %x", data, got, again)
		}
	})
}
