package transporttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

func testCallAndReply(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	call := &transport.Message{
		Kind: transport.Call, ID: 7, Timeout: 1500 * time.Millisecond, Body: []byte(`{"name":"John"}`),
		Header: metadata.Of(transport.HeaderService, "greeter", transport.HeaderEndpoint, "Say.Hello", "user", "jöhn"),
	}
	send(t, client, call)
	got := recv(t, server)
	wantKind(t, got, transport.Call, 7)
	if !bytes.Equal(got.Header, call.Header) || !bytes.Equal(got.Body, call.Body) {
		t.Fatalf("call came as header %q, body %q", got.Header, got.Body)
	}
	if !h.NoTimeout && got.Timeout != call.Timeout {
		t.Fatalf("timeout came as %s, want %s", got.Timeout, call.Timeout)
	}
	send(t, server, &transport.Message{Kind: transport.Reply, ID: 7, Header: metadata.Of("a", "b"), Body: []byte("hi")})
	got = recv(t, client)
	wantKind(t, got, transport.Reply, 7)
	if got.Header.Get("a") != "b" || string(got.Body) != "hi" {
		t.Fatalf("reply came as header %q, body %q", got.Header, got.Body)
	}
	if server.RemoteAddr() == "" || client.RemoteAddr() == "" {
		t.Fatal("RemoteAddr is empty")
	}
}

func testEmptyMessage(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	send(t, client, &transport.Message{Kind: transport.Call, ID: 1})
	got := recv(t, server)
	wantKind(t, got, transport.Call, 1)
	if len(got.Header) != 0 || len(got.Body) != 0 || got.Timeout != 0 {
		t.Fatalf("an empty message came as %+v", got)
	}
}

func testSendDoesNotRetain(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	m := &transport.Message{Kind: transport.Call, Header: metadata.Of("k", "first"), Body: []byte("first")}
	m.ID = 1
	send(t, client, m)
	copy(m.Body, "other")
	copy(m.Header[len(m.Header)-5:], "other")
	m.ID = 2
	send(t, client, m)
	if got := recv(t, server); string(got.Body) != "first" || got.Header.Get("k") != "first" || got.ID != 1 {
		t.Fatalf("a later change of the message reached the peer: %q %q", got.Header, got.Body)
	}
	wantKind(t, recv(t, server), transport.Call, 2)
}

func testRecvReusesStorage(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	send(t, client, &transport.Message{Kind: transport.Call, ID: 1, Timeout: time.Second, Header: metadata.Of("long", "header"), Body: body(1000, 1)})
	send(t, client, &transport.Message{Kind: transport.Call, ID: 2, Body: []byte("short")})
	m := recv(t, server)
	if err := server.Recv(bounded(t), m); err != nil {
		t.Fatal(err)
	}
	if m.ID != 2 || m.Timeout != 0 || len(m.Header) != 0 || string(m.Body) != "short" {
		t.Fatalf("a second Recv into the same message gave %+v", m)
	}
}

func testConcurrentSends(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	const senders, each = 8, 40
	var wg sync.WaitGroup
	for s := range uint32(senders) {
		wg.Go(func() {
			for i := range uint32(each) {
				id := s*each + i + 1
				size := int(id%7) * 1999
				if i == each/2 {
					size = 200_000
				}
				if err := client.Send(bounded(t), &transport.Message{Kind: transport.Call, ID: id, Body: body(size, id)}); err != nil {
					t.Errorf("Send: %v", err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	seen := make(map[uint32]bool)
	for range senders * each {
		m := recv(t, server)
		if seen[m.ID] || !bytes.Equal(m.Body, body(len(m.Body), m.ID)) {
			t.Fatalf("message %d came twice or with another's body", m.ID)
		}
		seen[m.ID] = true
	}
}

func testStream(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	send(t, client, &transport.Message{Kind: transport.Open, ID: 3, Header: metadata.Of(transport.HeaderEndpoint, "Say.Chat")})
	open := recv(t, server)
	wantKind(t, open, transport.Open, 3)
	if open.Header.Get(transport.HeaderEndpoint) != "Say.Chat" {
		t.Fatalf("header of the Open came as %q", open.Header)
	}
	const count = 50
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint32(count) {
			m := &transport.Message{Kind: transport.Data, ID: 3, Body: body(int(i)*3000, i)}
			if err := client.Send(bounded(t), m); err != nil {
				t.Errorf("Send: %v", err)
			}
		}
		if err := client.Send(bounded(t), &transport.Message{Kind: transport.End, ID: 3}); err != nil {
			t.Errorf("Send: %v", err)
		}
	})
	for i := range uint32(count) {
		m := recv(t, server)
		wantKind(t, m, transport.Data, 3)
		if !bytes.Equal(m.Body, body(int(i)*3000, i)) {
			t.Fatalf("message %d of the stream came out of order or damaged", i)
		}
	}
	wantKind(t, recv(t, server), transport.End, 3)
	wg.Wait()
	// The client's direction is closed, the server's is not.
	for i := range 3 {
		send(t, server, &transport.Message{Kind: transport.Data, ID: 3, Body: fmt.Append(nil, i)})
	}
	send(t, server, &transport.Message{Kind: transport.End, ID: 3, Header: metadata.Of("sum", "3")})
	for i := range 3 {
		if m := recv(t, client); m.Kind != transport.Data || string(m.Body) != fmt.Sprint(i) {
			t.Fatalf("message %d of the server came as %s %q", i, m.Kind, m.Body)
		}
	}
	end := recv(t, client)
	wantKind(t, end, transport.End, 3)
	if end.Header.Get("sum") != "3" {
		t.Fatalf("header of the End came as %q", end.Header)
	}
}

func testStreamAfterStream(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	for id := range uint32(3) {
		send(t, client, &transport.Message{Kind: transport.Open, ID: id + 1})
		wantKind(t, recv(t, server), transport.Open, id+1)
		send(t, server, &transport.Message{Kind: transport.End, ID: id + 1})
		wantKind(t, recv(t, client), transport.End, id+1)
		// This crosses the server's End on its way: it must do no harm.
		send(t, client, &transport.Message{Kind: transport.Data, ID: id + 1})
		send(t, client, &transport.Message{Kind: transport.End, ID: id + 1})
	}
	send(t, client, &transport.Message{Kind: transport.Call, ID: 9})
	for {
		m := recv(t, server)
		if m.Kind == transport.Call {
			wantKind(t, m, transport.Call, 9)
			return
		}
	}
}

func testStatusError(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	e := &status.Error{ID: "greeter", Code: status.NotFound, Detail: "no \"name\":\nline two, ünïcode, 100%", Refused: true}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	send(t, client, &transport.Message{Kind: transport.Call, ID: 1})
	recv(t, server)
	send(t, server, &transport.Message{Kind: transport.Reply, ID: 1, Header: metadata.Of(transport.HeaderError, string(text))})
	got := status.Parse(recv(t, client).Header.Get(transport.HeaderError))
	if got == nil || got.ID != e.ID || got.Code != e.Code || got.Detail != e.Detail || !got.Refused {
		t.Fatalf("the error came as %+v, want %+v", got, e)
	}
}

func testMetadataLimits(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	var full metadata.MD
	for i := range metadata.MaxPairs {
		size := metadata.MaxSize/metadata.MaxPairs - 8
		var err error
		if full, err = full.Set(fmt.Sprintf("k%04d", i), strings.Repeat("v", size)); err != nil {
			t.Fatalf("pair %d: %v", i, err)
		}
	}
	if len(full) != metadata.MaxSize {
		t.Fatalf("the test's metadata has %d bytes, want the limit", len(full))
	}
	send(t, client, &transport.Message{Kind: transport.Call, ID: 1, Header: full})
	if got := recv(t, server); !bytes.Equal(got.Header, full) {
		t.Fatalf("%d bytes of metadata came as %d", len(full), len(got.Header))
	}
	over := append(full[:len(full):len(full)], 1, 'x', 0, 0)
	if err := client.Send(bounded(t), &transport.Message{Kind: transport.Call, ID: 2, Header: over}); !errors.Is(err, transport.ErrTooLarge) {
		t.Fatalf("Send of %d bytes of metadata: %v, want ErrTooLarge", len(over), err)
	}
	broken := metadata.MD{200, 'x'}
	if err := client.Send(bounded(t), &transport.Message{Kind: transport.Call, ID: 2, Header: broken}); !errors.Is(err, metadata.ErrInvalid) {
		t.Fatalf("Send of broken metadata: %v, want metadata.ErrInvalid", err)
	}
	wantUsable(t, client, server, 3)
}

func testMessageLimit(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	err := client.Send(bounded(t), &transport.Message{Kind: transport.Call, ID: 1, Body: make([]byte, h.MaxMessage+1)})
	if !errors.Is(err, transport.ErrTooLarge) || transport.NotSent(err) {
		t.Fatalf("Send over the limit: %v, want ErrTooLarge and not ErrNotSent, as no other node would take it", err)
	}
	largest := body(h.MaxMessage, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := client.Send(bounded(t), &transport.Message{Kind: transport.Call, ID: 2, Body: largest}); err != nil {
			t.Errorf("Send of the largest message: %v", err)
		}
	})
	defer wg.Wait()
	if got := recv(t, server); got.ID != 2 || !bytes.Equal(got.Body, largest) {
		t.Fatalf("the largest message came as %d bytes with id %d", len(got.Body), got.ID)
	}
}

// testLargeBesideSmall has calls of the largest size and of 16 bytes share a connection.
func testLargeBesideSmall(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	echo(t, server, nil)
	calls := transport.NewCaller(client)
	defer calls.Close()
	ctx := bounded(t)
	var wg sync.WaitGroup
	for i := range uint32(12) {
		size, count := 16, 50
		if i%6 == 0 {
			size, count = h.MaxMessage, 2
		}
		wg.Go(func() {
			for range count {
				if err := echoed(ctx, calls, body(size, i)); err != nil {
					t.Errorf("call of %d bytes: %v", size, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// echoed makes a call to echo and checks its answer.
func echoed(ctx context.Context, calls transport.Caller, data []byte) error {
	var rsp transport.Message
	if err := calls.Call(ctx, &transport.Message{Header: metadata.Of("say", "hi"), Body: data}, &rsp); err != nil {
		return err
	}
	if rsp.Kind != transport.Reply || rsp.Header.Get("echo") != "hi" || !bytes.Equal(rsp.Body, data) {
		return fmt.Errorf("wrong answer: %s, header %q, %d bytes", rsp.Kind, rsp.Header, len(rsp.Body))
	}
	return nil
}

func testCancel(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	send(t, client, &transport.Message{Kind: transport.Call, ID: 1})
	send(t, client, &transport.Message{Kind: transport.Cancel, ID: 1})
	wantKind(t, recv(t, server), transport.Call, 1)
	wantKind(t, recv(t, server), transport.Cancel, 1)
	send(t, client, &transport.Message{Kind: transport.Open, ID: 2})
	send(t, client, &transport.Message{Kind: transport.Cancel, ID: 2})
	wantKind(t, recv(t, server), transport.Open, 2)
	wantKind(t, recv(t, server), transport.Cancel, 2)
}

func testPing(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	echo(t, server, nil)
	send(t, client, &transport.Message{Kind: transport.Ping, ID: 5})
	wantKind(t, recv(t, client), transport.Pong, 5)
}

// testWrongID: what belongs to no stream breaks the connection.
func testWrongID(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	send(t, client, &transport.Message{Kind: transport.Data, ID: 4})
	var m transport.Message
	if err := server.Recv(bounded(t), &m); !errors.Is(err, transport.ErrProtocol) {
		t.Fatalf("Recv of Data for a stream that was never opened: %v, want ErrProtocol", err)
	}
	for client.Recv(bounded(t), &m) == nil { // until the connection is seen to be closed
	}
}
