package grpc

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

func TestTimeouts(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		1: "1n", time.Millisecond: "1000000n", time.Second: "1000000u", 99_999_999: "99999999n", 100_000_001: "100001u", time.Minute: "60000000u",
		time.Hour: "3600000m", 1000 * time.Hour: "3600000S", 1 << 62: "76861434M",
	} {
		got := formatTimeout(d)
		back, ok := parseTimeout(got)
		if got != want || !ok || back < d {
			t.Errorf("%v is written as %q, want %q, and read as %v", d, got, want, back)
		}
	}
	for _, bad := range []string{"", "1", "S", "123456789S", "-1S", "1.5S", "1s", "1 S"} {
		if d, ok := parseTimeout(bad); ok {
			t.Errorf("%q is read as %v", bad, d)
		}
	}
}

func TestContentTypes(t *testing.T) {
	t.Parallel()
	for grpc, own := range map[string]string{
		"application/grpc": "application/protobuf", "application/grpc+json": "application/json", "application/grpc+bytes": "application/octet-stream",
		"application/grpc+msgpack": "application/msgpack",
	} {
		if got := contentType(grpc); got != own {
			t.Errorf("%s is %s", grpc, got)
		}
		if got := grpcType(own); got != grpc {
			t.Errorf("%s is written as %s", own, got)
		}
	}
	for _, proto := range []string{"application/grpc+proto", "application/grpc;charset=utf-8", "application/grpc+PROTO ; x=y"} {
		if got := contentType(proto); got != "application/protobuf" {
			t.Errorf("%s is %s", proto, got)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for in, want := range map[[2]string]string{
		{"greeter", "Say.Hello"}: "/greeter.Say/Hello", {"", "Say.Hello"}: "/Say/Hello", {"greeter", "hello"}: "/greeter/hello",
		{"x", "pkg.Say/Hello"}: "/pkg.Say/Hello", {"x", "/pkg.Say/Hello"}: "/pkg.Say/Hello", {"g", "v1.Say.Hello"}: "/g.v1.Say/Hello",
		{"g", "a b"}: "", {"g", "a?b"}: "", {"g", "ä.b"}: "", {"g", "a%2fb"}: "",
	} {
		got, err := methodPath(in[0], in[1])
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

// TestCodes: each code of gRPC comes back as it went, where ours has a word for it.
func TestCodes(t *testing.T) {
	t.Parallel()
	for c := codeCanceled; c <= codeUnauthenticated; c++ {
		switch back := codeOf(statusOf(c)); c {
		case codeUnknown, codeDataLoss:
			c2 := codeInternal
			if back != c2 {
				t.Errorf("%s comes back as %s", c, back)
			}
		case codeAborted, codeOutOfRange:
		default:
			if back != c {
				t.Errorf("%s comes back as %s", c, back)
			}
		}
	}
}

// FuzzReader: whatever comes, no message is over its limit, and what was framed comes back.
func FuzzReader(f *testing.F) {
	f.Add([]byte("hello"), true)
	f.Add(appendFrame(nil, bytes.Repeat([]byte("x"), 1000), true), false)
	f.Add([]byte{1, 0, 0, 0, 2, 'x', 'y'}, false)
	f.Fuzz(func(t *testing.T, data []byte, pack bool) {
		const limit = 4096
		in := reader{r: bytes.NewReader(data), max: limit, gzip: true}
		for {
			body, err := in.next(nil)
			if err != nil {
				if e := (*status.Error)(nil); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, transport.ErrTooLarge) && !errors.As(err, &e) {
					t.Fatalf("%v", err)
				}
				break
			}
			if len(body) > limit {
				t.Fatalf("a message of %d bytes", len(body))
			}
		}
		if len(data) > limit {
			return
		}
		in = reader{r: bytes.NewReader(appendFrame(nil, data, pack)), max: limit, gzip: true}
		if back, err := in.next(nil); err != nil || !bytes.Equal(back, data) {
			t.Fatalf("%d bytes came back as %d, %v", len(data), len(back), err)
		}
	})
}

// FuzzStatus: an error comes back as it went, and nothing that a peer sends breaks the reader.
func FuzzStatus(f *testing.F) {
	f.Add("greeter", "no such name: 100%", 404, true, "AAAA")
	f.Fuzz(func(t *testing.T, id, detail string, c int, refused bool, foreign string) {
		if e := readStatus(code(c), decodeMessage(detail), foreign); e == nil || !e.Remote {
			t.Fatalf("%v", e)
		}
		e := &status.Error{ID: id, Code: status.Code(400 + (c%200+200)%200), Detail: detail, Refused: refused, Details: []status.Packed{{Type: "google.rpc.ErrorInfo", Value: []byte(foreign)}}}
		encoded := encodeBin(appendStatus(nil, codeOf(e.Code), detail, e, true))
		got := readStatus(codeOf(e.Code), "", encoded)
		if valid := toValid(id) == id && toValid(detail) == detail; valid && (got.ID != id || got.Detail != detail) || got.Code != e.Code || got.Refused != refused || len(got.Details) != 1 || string(got.Details[0].Value) != foreign {
			t.Fatalf("%+v came back as %+v", e, got)
		}
		if text := encodeMessage(detail); toValid(detail) == detail && decodeMessage(text) != detail {
			t.Fatalf("%q came back as %q", detail, decodeMessage(text))
		}
	})
}

func toValid(s string) string { return string(bytes.ToValidUTF8([]byte(s), []byte("\uFFFD"))) }
