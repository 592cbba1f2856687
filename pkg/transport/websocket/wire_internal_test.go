package websocket

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

const fuzzLimit = 1000

// known reports whether an error of reading is one that the connection knows what to do with.
func known(err error) bool {
	var e *status.Error
	return errors.Is(err, transport.ErrProtocol) || errors.Is(err, transport.ErrTooLarge) || errors.As(err, &e)
}

// FuzzBinary: whatever comes is a frame, and where it is a whole message that is written as it was read; or it is an error.
func FuzzBinary(f *testing.F) {
	add := func(m *transport.Message, flags uint8) {
		f.Add(appendFrame(nil, headOf(m, len(m.Body), flags), m.Header, m.Body))
	}
	add(&transport.Message{Kind: transport.Call, ID: 7, Timeout: time.Second, Header: metadata.Of("a", "b"), Body: []byte("{}")}, 0)
	add(&transport.Message{Kind: transport.Call, ID: 7, Header: metadata.Of("a", "b"), Body: bytes.Repeat([]byte("."), 2*readSize)}, frame.More)
	add(&transport.Message{Kind: transport.GoAway}, 0)
	f.Fuzz(func(t *testing.T, data []byte) {
		a := frame.NewAssembler(fuzzLimit, new(frame.Bodies))
		complete, err := readFrame(bytes.NewReader(data), a, make([]byte, readSize))
		var m transport.Message
		if err == nil && complete {
			err = a.Take(&m)
		}
		switch {
		case err != nil && !known(err):
			t.Fatalf("%v", err)
		case err != nil:
			return
		case !complete:
			if a.Between() {
				t.Fatal("a part came, and is nowhere")
			}
			return
		}
		if err := transport.Check(&m, fuzzLimit); err != nil {
			t.Fatal(err)
		}
		if again := appendFrame(nil, headOf(&m, len(m.Body), 0), m.Header, m.Body); !bytes.Equal(again, data) {
			t.Fatalf("%x was read, and is written as %x", data, again)
		}
	})
}

// FuzzText: whatever comes is a message that can be carried, or an error; and what is written is JSON that is understood.
func FuzzText(f *testing.F) {
	f.Add(`{"kind":"call","id":1,"service":"s","endpoint":"Say.Hello","timeout":1.5,"metadata":{"a":"b"},"body":{"n":1}}`)
	f.Add(`{"kind":"data","id":1,"type":"application/octet-stream","base64":"AAH/"}`)
	f.Add(`{"kind":"cancel","id":4294967295}`)
	f.Fuzz(func(t *testing.T, data string) {
		var m transport.Message
		if err := readText(strings.NewReader(data), &m, fuzzLimit); err != nil {
			if !known(err) {
				t.Fatalf("%v", err)
			}
			return
		}
		if err := transport.Check(&m, fuzzLimit); err != nil || m.Timeout < 0 {
			t.Fatal(err, m.Timeout)
		}
		m.Header = transport.Metadata(m.Header) // a server sends no names of endpoints
		text, err := appendText(nil, &m)
		if err != nil {
			t.Fatal(err)
		}
		var back transport.Message
		if err := readText(bytes.NewReader(text), &back, 2*fuzzLimit); err != nil || back.Kind != m.Kind || back.ID != m.ID {
			t.Fatalf("%s was written as %s: %v", data, text, err)
		}
	})
}
