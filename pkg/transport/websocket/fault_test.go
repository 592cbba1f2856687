package websocket_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ws "github.com/coder/websocket"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/websocket"
)

const patience = 20 * time.Second

// open gives a WebSocket of a client that need not keep to anything.
func open(t *testing.T, addr string, protocols ...string) *ws.Conn {
	t.Helper()
	c, _, err := ws.Dial(t.Context(), "ws://"+addr+"/", &ws.DialOptions{Subprotocols: protocols, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	must(t, err)
	c.SetReadLimit(-1)
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// stranger is a WebSocket that speaks nothing of ours.
func stranger(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := ws.Accept(w, r, nil); err == nil {
			_, _, _ = c.Read(context.Background())
			_ = c.CloseNow()
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func get(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		if r.Header.Add(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	rsp, err := c.Do(r)
	must(t, err)
	defer rsp.Body.Close()
	if rsp.StatusCode == http.StatusSwitchingProtocols {
		return rsp.StatusCode, ""
	}
	text, err := io.ReadAll(rsp.Body)
	must(t, err)
	return rsp.StatusCode, string(text)
}

// read gives what comes next, or how the WebSocket was closed.
func read(t *testing.T, c *ws.Conn) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	_, data, err := c.Read(ctx)
	var closed ws.CloseError
	switch {
	case err == nil:
		return string(data)
	case errors.As(err, &closed):
		return closed.Error()
	}
	return err.Error()
}

func write(t *testing.T, c *ws.Conn, typ ws.MessageType, data []byte) {
	t.Helper()
	must(t, c.Write(t.Context(), typ, data))
}

// part is a frame with flags.
func part(flags byte, kind transport.Kind, id uint32, body string) []byte {
	f := frame(kind, id, uint32(len(body)), 0, body)
	f[11] = flags
	return f
}

// The flags of a frame.
const more, cont, abort = 1, 2, 4

// frame is a message in its binary form.
func frame(kind transport.Kind, id, body uint32, section int, rest ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, body)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint16(b, uint16(section))
	b = append(b, byte(kind), 0, 0, 0, 0, 0)
	return append(b, strings.Join(rest, "")...)
}

// TestGarbage: what is no message ends the connection, with a word, and nobody else's.
func TestGarbage(t *testing.T) {
	t.Parallel()
	w := serve(t, newTransport(t, websocket.Options{}))
	for name, test := range map[string]struct {
		protocol string
		typ      ws.MessageType
		data     []byte
		want     string
	}{
		"text among binary":       {"micro.v1", ws.MessageText, []byte("{}"), "a text message, want binary"},
		"nothing":                 {"micro.v1", ws.MessageBinary, nil, "shorter than it says"},
		"a cut header":            {"micro.v1", ws.MessageBinary, []byte{1, 2, 3}, "shorter than it says"},
		"a cut body":              {"micro.v1", ws.MessageBinary, frame(transport.Call, 1, 10, 0, "short"), "shorter than it says"},
		"a long body":             {"micro.v1", ws.MessageBinary, frame(transport.Call, 1, 3, 0, "longer"), "longer than it says"},
		"a frame over its limit":  {"micro.v1", ws.MessageBinary, frame(transport.Call, 1, 1<<31, 0, "short"), "limit 131072"},
		"an unknown kind":         {"micro.v1", ws.MessageBinary, frame(99, 1, 0, 0), "unknown kind 99"},
		"unknown flags":           {"micro.v1", ws.MessageBinary, part(8, transport.Call, 1, "x"), "unknown flags 0x8"},
		"the rest of nothing":     {"micro.v1", ws.MessageBinary, part(cont, transport.Call, 1, "x"), "of which nothing came"},
		"a part without a body":   {"micro.v1", ws.MessageBinary, part(more, transport.Call, 1, ""), "says that more follows"},
		"a ping in parts":         {"micro.v1", ws.MessageBinary, part(more, transport.Ping, 1, "x"), "says that more follows"},
		"two frames in a message": {"micro.v1", ws.MessageBinary, append(part(more, transport.Call, 1, "x"), part(cont, transport.Call, 1, "x")...), "longer than it says"},
		"metadata over the limit": {"micro.v1", ws.MessageBinary, frame(transport.Call, 1, 0, 20000), "20000 bytes of metadata"},
		"broken metadata":         {"micro.v1", ws.MessageBinary, frame(transport.Call, 1, 0, 2, "\xffx"), "metadata of a call"},
		"a server's kind":         {"micro.v1", ws.MessageBinary, frame(transport.Reply, 1, 0, 0), "which fits nothing under way"},
		"binary among text":       {"micro.json.v1", ws.MessageBinary, []byte("{}"), "a binary message, want text"},
		"no JSON":                 {"micro.json.v1", ws.MessageText, []byte("kind"), "not a JSON message"},
		"no UTF-8":                {"micro.json.v1", ws.MessageText, []byte("{\"kind\":\"\xff\"}"), "no UTF-8"},
		"two objects":             {"", ws.MessageText, []byte(`{"kind":"ping"}{}`), "more than one JSON object"},
		"an unknown field":        {"", ws.MessageText, []byte(`{"kind":"ping","boddy":1}`), "unknown field"},
		"no kind":                 {"", ws.MessageText, []byte(`{"id":1}`), "want call, open"},
		"a page's reply":          {"", ws.MessageText, []byte(`{"kind":"reply","id":1}`), "want call, open"},
		"a stream's without one":  {"", ws.MessageText, []byte(`{"kind":"data","id":1}`), "which fits nothing under way"},
		"an id that is too large": {"", ws.MessageText, []byte(`{"kind":"call","id":4294967296}`), "not a JSON message"},
		"bad base64 in a stream":  {"", ws.MessageText, []byte(`{"kind":"data","id":1,"base64":"?"}`), "a data: base64"},
	} {
		var protocols []string
		if test.protocol != "" {
			protocols = []string{test.protocol}
		}
		c := open(t, w.addr, protocols...)
		write(t, c, test.typ, test.data)
		if got := read(t, c); !strings.Contains(got, "StatusProtocolError") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %q", name, got, test.want)
		}
	}
	if got, err := call(t, newTransport(t, websocket.Options{}), w.addr, `{"n":1}`); err != nil || got != `{"n":2}` {
		t.Errorf("the next call: %q, %v", got, err)
	}
}

// TestWrongCalls: a page's call that cannot be is answered, and the WebSocket lives on.
func TestWrongCalls(t *testing.T) {
	t.Parallel()
	w := serve(t, newTransport(t, websocket.Options{MaxMessage: 1000}))
	c := open(t, w.addr)
	for name, test := range map[string]struct{ message, want string }{
		"a header of ours":  {`"endpoint":"Say.Twice","metadata":{"Micro-Id":"1"}`, `is the framework's`},
		"a broken key":      {`"endpoint":"Say.Twice","metadata":{"a b":"1"}`, `"code":400`},
		"a time below zero": {`"endpoint":"Say.Twice","timeout":-1`, `want milliseconds`},
		"two bodies":        {`"endpoint":"Say.Twice","body":{},"base64":""`, `not both`},
		"bad base64":        {`"endpoint":"Say.Twice","base64":"?"`, `base64: `},
		"an error":          {`"endpoint":"Say.Twice","error":{}`, `the server's to send`},
		"no endpoint":       {`"body":{}`, `"code":4`},
		"a large body":      {`"endpoint":"Say.Twice","body":"` + strings.Repeat("x", 1000) + `"`, `"code":413`},
	} {
		for kind, answer := range map[string]string{"call": "reply", "open": "end"} {
			write(t, c, ws.MessageText, []byte(`{"kind":"`+kind+`","id":1,`+test.message+`}`))
			if got := read(t, c); !strings.HasPrefix(got, `{"kind":"`+answer+`","id":1,"error":{`) || !strings.Contains(got, test.want) {
				if kind == "open" && name == "a large body" && strings.Contains(got, `"code":4`) {
					continue
				}
				t.Errorf("%s, %s: %s, want %q", kind, name, got, test.want)
			}
		}
	}
	write(t, c, ws.MessageText, []byte(`{"kind":"call","id":1,"endpoint":"Say.Twice","body":{"n":1}}`))
	if got := read(t, c); got != `{"kind":"reply","id":1,"body":{"n":2}}` {
		t.Errorf("the next call: %s", got)
	}
	write(t, c, ws.MessageText, bytes.Repeat([]byte("x"), 200_000))
	if got := read(t, c); !strings.Contains(got, "StatusMessageTooBig") {
		t.Errorf("far over the limit: %s", got)
	}
}

// TestOversize: a message over the limit is skipped, and its call answered.
func TestOversize(t *testing.T) {
	t.Parallel()
	w := serve(t, newTransport(t, websocket.Options{MaxMessage: 1000}))
	large := newTransport(t, websocket.Options{})
	_, err := call(t, large, w.addr, `{"n":1,"x":"`+strings.Repeat("x", 100_000)+`"}`)
	if status.CodeOf(err) != status.TooLarge {
		t.Errorf("a call over the server's limit: %v", err)
	}
	c, err := large.Dial(t.Context(), w.addr)
	must(t, err)
	calls := transport.NewCaller(c)
	defer calls.Close()
	header := metadata.Of(transport.HeaderEndpoint, "Say.Twice", transport.HeaderContentType, "application/json")
	var rsp transport.Message
	must(t, calls.Call(t.Context(), &transport.Message{Header: header, Body: make([]byte, 1001)}, &rsp))
	must(t, calls.Call(t.Context(), &transport.Message{Header: header, Body: []byte(`{"n":1}`)}, &rsp))
	if string(rsp.Body) != `{"n":2}` {
		t.Errorf("the next call on the connection: %q %q", rsp.Header, rsp.Body)
	}
}

// TestBeyondLoopback: a port that other machines reach is not opened to everybody, unless that is asked for, and then it is said.
func TestBeyondLoopback(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	for name, test := range map[string]struct {
		address string
		options websocket.Options
		want    string
	}{
		"loopback":            {"127.0.0.1:0", websocket.Options{}, ""},
		"all interfaces":      {"0.0.0.0:0", websocket.Options{}, "is not loopback"},
		"all, by IPv6":        {"[::]:0", websocket.Options{}, "is not loopback"},
		"an empty host":       {":0", websocket.Options{}, "is not loopback"},
		"with a token":        {":0", websocket.Options{Token: "secret"}, ""},
		"with TLS":            {":0", websocket.Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{{}}}}, ""},
		"insecure, asked for": {":0", websocket.Options{Insecure: true, Logger: slog.New(slog.NewTextHandler(&said, nil))}, ""},
	} {
		l, err := newTransport(t, test.options).Listen(t.Context(), test.address)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if err == nil {
			must(t, l.Close())
		}
	}
	if !strings.Contains(said.String(), "whoever reaches") {
		t.Errorf("insecure says %q", said.String())
	}
}

// TestWhoMayConnect: pages of foreign origins, and names that are none of ours, are refused before there is a WebSocket.
func TestWhoMayConnect(t *testing.T) {
	t.Parallel()
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
	o := websocket.Options{Origins: []string{"https://app.example", "http://localhost:3000"}, AllowedHosts: []string{"named.example"}}
	loopback, err := newTransport(t, o).Listen(t.Context(), "127.0.0.1:0")
	must(t, err)
	o.Insecure = true
	public, err := newTransport(t, o).Listen(t.Context(), "0.0.0.0:0")
	must(t, err)
	for _, l := range []transport.Listener{loopback, public} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		defer l.Close()
	}
	_, port, _ := net.SplitHostPort(public.Addr())
	for name, test := range map[string]struct {
		header           []string
		loopback, public int
	}{
		"no origin":                    {nil, 101, 101},
		"an allowed origin":            {[]string{"Origin", "https://app.example"}, 101, 101},
		"an allowed origin, elsewhere": {[]string{"Origin", "https://app.example", "Sec-Fetch-Site", "cross-site"}, 101, 101},
		"its port":                     {[]string{"Origin", "https://app.example:444"}, 403, 403},
		"its scheme":                   {[]string{"Origin", "http://app.example"}, 403, 403},
		"a local page":                 {[]string{"Origin", "http://localhost:3000"}, 101, 101},
		"another local page":           {[]string{"Origin", "http://localhost:3001"}, 403, 403},
		"a foreign origin":             {[]string{"Origin", "https://evil.example"}, 403, 403},
		"an opaque origin":             {[]string{"Origin", "null"}, 403, 403},
		"two origins":                  {[]string{"Origin", "https://app.example", "Origin", "https://evil.example"}, 403, 403},
		"a foreign host":               {[]string{"Host", "evil.example", "Origin", "http://evil.example"}, 421, 101},
		"an allowed host":              {[]string{"Host", "named.example", "Origin", "http://named.example"}, 101, 101},
		"unknown subprotocols":         {[]string{"Sec-WebSocket-Protocol", "chat, soap"}, 400, 400},
		"no key":                       {[]string{"Sec-WebSocket-Key", "x"}, 400, 400},
	} {
		header := append(upgrade[:len(upgrade):len(upgrade)], test.header...)
		if code, text := get(t, "http://"+loopback.Addr()+"/", header...); code != test.loopback {
			t.Errorf("%s, on loopback: %d %s, want %d", name, code, text, test.loopback)
		}
		if code, text := get(t, "http://127.0.0.1:"+port+"/", header...); code != test.public {
			t.Errorf("%s: %d %s, want %d", name, code, text, test.public)
		}
	}
	if code, text := get(t, "http://"+loopback.Addr()+"/"); code != http.StatusUpgradeRequired || !strings.Contains(text, "a WebSocket here") {
		t.Errorf("a plain request: %d %s", code, text)
	}
}

// TestMaxConns: beyond the limit a WebSocket is refused, until another ends.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, websocket.Options{MaxConns: 1})
	w := serve(t, tr)
	first, err := tr.Dial(t.Context(), w.addr)
	must(t, err)
	if _, err := tr.Dial(t.Context(), w.addr); !transport.NotSent(err) || status.CodeOf(err) != status.Unavailable {
		t.Errorf("a second: %v", err)
	}
	first.Close()
	for deadline := time.Now().Add(patience); ; {
		c, err := tr.Dial(t.Context(), w.addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// pair gives both ends of a connection.
func pair(t *testing.T, client, server websocket.Options) (transport.Conn, transport.Conn) {
	t.Helper()
	l, err := newTransport(t, server).Listen(t.Context(), "127.0.0.1:0")
	must(t, err)
	accepted := make(chan transport.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	c, err := newTransport(t, client).Dial(t.Context(), l.Addr())
	must(t, err)
	s := <-accepted
	t.Cleanup(func() { c.Close(); s.Close(); l.Close() })
	return c, s
}

// TestSilence: a peer from which nothing comes any more is lost; one whose user does not receive for a while is not, nor is one
// that has nothing to say.
func TestSilence(t *testing.T) {
	t.Parallel()
	silence := websocket.Options{Silence: 300 * time.Millisecond}
	t.Run("dead", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		held := make(chan *ws.Conn, 1)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _ := ws.Accept(w, r, &ws.AcceptOptions{Subprotocols: []string{"micro.v1"}})
			held <- c // and nobody reads
		})}
		go func() { _ = s.Serve(l) }()
		c, err := newTransport(t, silence).Dial(t.Context(), l.Addr().String())
		must(t, err)
		t.Cleanup(func() { c.Close(); _ = (<-held).CloseNow(); s.Close() })
		ctx, stop := context.WithTimeout(t.Context(), patience)
		defer stop()
		var m transport.Message
		if err := c.Recv(ctx, &m); err == nil || !strings.Contains(err.Error(), "nothing came for 300ms") {
			t.Errorf("Recv from a dead peer: %v", err)
		}
		if err := c.Send(ctx, &transport.Message{Kind: transport.Ping}); !transport.NotSent(err) {
			t.Errorf("Send to a dead peer: %v", err)
		}
	})
	t.Run("busy", func(t *testing.T) {
		t.Parallel()
		client, server := pair(t, silence, silence)
		for id := range uint32(3) { // more than the server's end reads ahead
			must(t, client.Send(t.Context(), &transport.Message{Kind: transport.Call, ID: id + 1}))
		}
		ctx, stop := context.WithTimeout(t.Context(), 4*silence.Silence)
		defer stop()
		var m transport.Message
		if err := client.Recv(ctx, &m); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Recv while the peer's user is busy: %v", err)
		}
		for id := range uint32(3) {
			if err := server.Recv(t.Context(), &m); err != nil || m.ID != id+1 {
				t.Fatalf("call %d: %d, %v", id+1, m.ID, err)
			}
		}
		must(t, server.Send(t.Context(), &transport.Message{Kind: transport.Reply, ID: 3}))
		if err := client.Recv(t.Context(), &m); err != nil || m.ID != 3 {
			t.Fatalf("the reply: %d, %v", m.ID, err)
		}
	})
}

// TestSlowReader: a peer that reads nothing makes Send wait, and is given up when it has taken nothing for WriteTimeout.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	client, server := pair(t, websocket.Options{}, websocket.Options{WriteTimeout: 300 * time.Millisecond})
	_ = client // whose user does not receive
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	body := make([]byte, 1<<20)
	for {
		err := server.Send(ctx, &transport.Message{Kind: transport.Reply, ID: 1, Body: body})
		if err == nil {
			continue
		}
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			t.Fatal("Send waits for ever")
		}
		break
	}
	var m transport.Message
	if err := server.Recv(ctx, &m); err == nil || ctx.Err() != nil {
		t.Errorf("Recv on a connection that was given up: %v", err)
	}
}

// upgraded gives a connection on which a page's WebSocket has been asked for.
func upgraded(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { nc.Close() })
	_, err = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	must(t, err)
	return nc
}

// TestPingFlood: a peer that asks and does not read the answers is given up.
func TestPingFlood(t *testing.T) {
	t.Parallel()
	l, err := newTransport(t, websocket.Options{MaxMessage: 1000}).Listen(t.Context(), "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			var m transport.Message
			err = c.Recv(context.Background(), &m)
			c.Close()
		}
		done <- err
	}()
	nc := upgraded(t, l.Addr())
	ping := append([]byte{0x89, 0x80 | 125, 0, 0, 0, 0}, make([]byte, 125)...)
	flood := bytes.Repeat(ping, 100)
	_ = nc.SetWriteDeadline(time.Now().Add(patience))
	for err == nil {
		_, err = nc.Write(flood)
	}
	if err := <-done; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the flood ended with %v", err)
	}
}

// TestSlowMessage: a message that does not come to its end breaks the connection.
func TestSlowMessage(t *testing.T) {
	t.Parallel()
	l, err := newTransport(t, websocket.Options{BodyIdle: 100 * time.Millisecond}).Listen(t.Context(), "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			var m transport.Message
			err = c.Recv(context.Background(), &m)
			c.Close()
		}
		done <- err
	}()
	nc := upgraded(t, l.Addr())
	_, err = nc.Write([]byte{0x81, 0x80 | 100, 0, 0, 0, 0, '{'})
	must(t, err)
	if err := <-done; !errors.Is(err, transport.ErrProtocol) {
		t.Errorf("Recv of half a message: %v", err)
	}
}

// TestDrained: a page is told that the service goes away, and its call under way is answered.
func TestDrained(t *testing.T) {
	t.Parallel()
	w := serve(t, newTransport(t, websocket.Options{}))
	c := open(t, w.addr)
	write(t, c, ws.MessageText, []byte(`{"kind":"call","id":1,"endpoint":"Say.Twice","body":{"n":1}}`))
	if got := read(t, c); got != `{"kind":"reply","id":1,"body":{"n":2}}` {
		t.Fatalf("the call: %s", got)
	}
	done := make(chan error, 1)
	go func() { done <- w.stop() }()
	if got := read(t, c); got != `{"kind":"goaway"}` {
		t.Errorf("first came %s", got)
	}
	write(t, c, ws.MessageText, []byte(`{"kind":"call","id":2,"endpoint":"Say.Twice","body":{"n":1}}`))
	if got := read(t, c); !strings.Contains(got, `"refused":true`) {
		t.Errorf("a call after that: %s", got)
	}
	if got := read(t, c); !strings.Contains(got, "StatusNormalClosure") {
		t.Errorf("at last came %s", got)
	}
	must(t, <-done)
}

// TestParts: between the parts of a large message others pass, and are answered.
func TestParts(t *testing.T) {
	t.Parallel()
	w := serve(t, newTransport(t, websocket.Options{}))
	c := open(t, w.addr, "micro.v1")
	header := string(metadata.Of(transport.HeaderEndpoint, "Say.Twice", transport.HeaderContentType, "application/json"))
	begin := func(flags byte, id uint32, body string) []byte {
		f := frame(transport.Call, id, uint32(len(body)), len(header), header, body)
		f[11] = flags
		return f
	}
	send := func(f []byte) { write(t, c, ws.MessageBinary, f) }
	send(begin(more, 1, `{"n":`))
	send(begin(more, 2, `{"n":9`))
	send(begin(0, 3, `{"n":2}`))
	if got := read(t, c); !strings.HasSuffix(got, `{"n":4}`) {
		t.Fatalf("a call beside two that are under way in parts: %q", got)
	}
	send(part(cont|abort, transport.Call, 2, ""))
	send(part(cont|more, transport.Call, 1, `1`))
	send(part(cont, transport.Call, 1, `1}`))
	if got := read(t, c); !strings.HasSuffix(got, `{"n":22}`) {
		t.Errorf("a call in parts: %q", got)
	}
	send(begin(0, 2, `{"n":3}`)) // the one that was given up did not take its id
	if got := read(t, c); !strings.HasSuffix(got, `{"n":6}`) {
		t.Errorf("a call after one that was given up: %q", got)
	}
	for id := range uint32(9) {
		send(begin(more, 10+id, `{"n":`))
	}
	if got := read(t, c); !strings.Contains(got, "more than 8 messages in parts") {
		t.Errorf("nine messages in parts: %q", got)
	}
}

// TestLateParts: a message whose parts do not all come breaks the connection, also where other messages come all the while; one
// that waits for the receiver does not.
func TestLateParts(t *testing.T) {
	t.Parallel()
	const limit = 400 * time.Millisecond
	l, err := newTransport(t, websocket.Options{BodyTimeout: limit, BodyIdle: limit}).Listen(t.Context(), "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	accepted := make(chan transport.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	peer := open(t, l.Addr(), "micro.v1")
	c := <-accepted
	defer c.Close()
	send := func(f []byte) error { return peer.Write(t.Context(), ws.MessageBinary, f) }
	must(t, send(part(more, transport.Call, 100, "large, ")))
	for id := range uint32(4) { // more than is read ahead
		must(t, send(frame(transport.Call, 1+id, 0, 0)))
	}
	must(t, send(part(cont, transport.Call, 100, "and late")))
	time.Sleep(2 * limit) // nobody receives
	var m transport.Message
	for _, want := range []uint32{1, 2, 3, 4, 100} {
		if err := c.Recv(t.Context(), &m); err != nil || m.ID != want {
			t.Fatalf("message %d: %d, %v", want, m.ID, err)
		}
	}
	if string(m.Body) != "large, and late" {
		t.Errorf("the parts are %q", m.Body)
	}
	must(t, send(part(more, transport.Call, 101, "never whole")))
	ended := make(chan error, 1)
	go func() {
		for err := error(nil); ; err = c.Recv(context.Background(), &m) {
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	begun := time.Now()
	for id := uint32(200); send(frame(transport.Call, id, 0, 0)) == nil && time.Since(begun) < patience; id++ {
		time.Sleep(limit / 20)
	}
	if err := <-ended; !errors.Is(err, transport.ErrProtocol) || !strings.Contains(err.Error(), "did not come in time") {
		t.Errorf("Recv of a message of which a part never came: %v", err)
	}
}

// TestGivenUpWithin: a message whose sender's time ends while it is being sent is taken back, and the connection lives on.
func TestGivenUpWithin(t *testing.T) {
	t.Parallel()
	client, server := pair(t, websocket.Options{}, websocket.Options{})
	for id := range uint32(3) { // the server's user does not receive: what comes after is not read
		must(t, client.Send(t.Context(), &transport.Message{Kind: transport.Call, ID: 1 + id}))
	}
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	for id := uint32(4); ; id++ {
		err := client.Send(ctx, &transport.Message{Kind: transport.Call, ID: id, Body: make([]byte, 4<<20)})
		if err == nil {
			continue
		}
		if !transport.NotSent(err) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Send whose time ended: %v", err)
		}
		break
	}
	sent := make(chan error, 1)
	go func() { sent <- client.Send(t.Context(), &transport.Message{Kind: transport.Call, ID: 1000}) }()
	var m transport.Message
	for n := uint32(1); m.ID != 1000; n++ {
		must(t, server.Recv(t.Context(), &m))
		if m.ID != n && m.ID != 1000 || n > 3 && m.ID != 1000 && len(m.Body) != 4<<20 {
			t.Fatalf("message %d came with %d bytes, want %d", m.ID, len(m.Body), n)
		}
	}
	must(t, <-sent)
}
