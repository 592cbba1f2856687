package link_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options() *link.Options {
	return &link.Options{
		MaxMessage: 4 << 20, BodyIdle: 10 * time.Second, BodyTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		Buffers: link.NewBuffers(), Monitor: new(link.Monitor),
	}
}

// sockets gives both ends of a TCP connection.
func sockets(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// pair gives a client and a server, which the test closes.
func pair(t testing.TB) (client, server *link.Conn) {
	t.Helper()
	c, s := sockets(t)
	client, server = link.New(c, c, options(), nil, false), link.New(s, s, options(), nil, true)
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return client, server
}

// router gives one route for all headers.
func router(h func(ctx context.Context, req, rsp *transport.Message), mode transport.PaceMode) transport.Router {
	route := &transport.Route{Serve: h, Pace: transport.NewPace(mode)}
	return func(metadata.MD) *transport.Route { return route }
}

// served runs ServeCalls until the connection ends, and gives a client.
func served(t testing.TB, route transport.Router) (client, server *link.Conn) {
	t.Helper()
	client, server = pair(t)
	done := make(chan error, 1)
	go func() { done <- server.ServeCalls(context.Background(), route) }()
	t.Cleanup(func() {
		client.Close()
		<-done
	})
	return client, server
}

// echo answers a call with its body, and a header of its own.
func echo(_ context.Context, req, rsp *transport.Message) {
	rsp.Header = append(rsp.Header, contentType...)
	rsp.Body = append(rsp.Body, req.Body...)
}

var (
	contentType = metadata.Of(transport.HeaderContentType, "application/octet-stream")
	callHeader  = metadata.Of(transport.HeaderService, "bytes", transport.HeaderEndpoint, "Bytes.Echo",
		transport.HeaderContentType, "application/octet-stream", "a", "1", "b", "2", "c", "3", "d", "4")
)
