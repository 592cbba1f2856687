package http

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/internal/socket"
	"github.com/cb02dfca/micro/pkg/transport"
)

// loopbackDial bounds connecting to this machine, where only a full queue makes it wait. It is tried twice: a process that
// gets no time to run sees its own delay as the peer's.
const loopbackDial = 300 * time.Millisecond

// PlainSuffix at the end of an address that is given to Dial says that its node does not take the upgrade: Dial then
// speaks plain HTTP at once, as with Options.Plain.
const PlainSuffix = "?plain"

// Dial connects to addr, "host:port", and asks for the upgrade. The request carries no call, as the port may have gone to
// another program; nothing else is sent before the 101 has come. A peer that answers in HTTP without upgrading is spoken
// to in plain HTTP, and "mucp://host:port" at once: such a Conn is a transport.Caller, and its streams are go-micro's, which
// cannot end one direction alone. A peer that does not speak HTTP gives an error that wraps transport.ErrProtocol.
func (t *Transport) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	bare, foreign := strings.CutPrefix(addr, protocolMucp+"://")
	bare, plain := strings.CutSuffix(bare, PlainSuffix)
	host, _, err := net.SplitHostPort(bare)
	if err != nil {
		return nil, fmt.Errorf("%w: dial: address %q: %w", transport.ErrNotSent, addr, err)
	}
	if plain || foreign || t.o.Plain {
		c := newPlainConn(t, bare)
		c.foreign = foreign
		return c, nil
	}
	nc, err := t.connect(ctx, addr, host)
	if err != nil {
		return nil, fmt.Errorf("%w: dial %s: %w", transport.ErrNotSent, addr, err)
	}
	early, upgraded, err := t.ask(ctx, nc, addr)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("%w: dial %s: %w", transport.ErrNotSent, addr, err)
	}
	if !upgraded {
		nc.Close()
		return newPlainConn(t, addr), nil
	}
	return t.newConn(nc, early, false), nil
}

// connect opens the TCP connection, and TLS on it.
func (t *Transport) connect(ctx context.Context, addr, host string) (net.Conn, error) {
	nc, err := t.dialTCP(ctx, "tcp", addr)
	if err != nil || t.o.TLSConfig == nil {
		return nc, err
	}
	ctx, stop := context.WithTimeout(ctx, t.o.HeaderTimeout)
	defer stop()
	secure := tls.Client(nc, t.tlsClient(host))
	if err := secure.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("%w: TLS: %w", transport.ErrProtocol, err)
	}
	return secure, nil
}

// dialTCP opens a TCP connection within the time for it.
func (t *Transport) dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: t.o.DialTimeout}
	local := hostcheck.Loopback(addr) && d.Timeout > loopbackDial
	if local {
		d.Timeout = loopbackDial
	}
	nc, err := d.DialContext(ctx, network, addr)
	if late := net.Error(nil); local && errors.As(err, &late) && late.Timeout() && ctx.Err() == nil {
		nc, err = d.DialContext(ctx, network, addr)
	}
	if err != nil {
		return nil, err
	}
	return socket.Conn(nc), nil
}

// tlsClient gives the configuration for dialling host: HTTP/1.1 alone, since HTTP/2 has no upgrade (RFC 9113 section 8.6).
func (t *Transport) tlsClient(host string) *tls.Config {
	c := t.o.TLSConfig.Clone()
	c.NextProtos = []string{"http/1.1"}
	if c.ServerName == "" {
		c.ServerName = host
	}
	return c
}

// ask requests the upgrade and reads the answer. early is what came behind it.
func (t *Transport) ask(ctx context.Context, nc net.Conn, addr string) (early []byte, upgraded bool, err error) {
	// As long as connecting may take: a process that is stopped is connected to all the same, and the call that has not
	// been sent goes to another node while there is time.
	if err := nc.SetDeadline(time.Now().Add(min(t.o.HeaderTimeout, t.o.DialTimeout))); err != nil {
		return nil, false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request := "OPTIONS / HTTP/1.1\r\nHost: " + addr + "\r\nConnection: Upgrade\r\nUpgrade: " + upgradeProtocol + "\r\n" +
		headerVersion + ": " + upgradeVersion + "\r\nContent-Length: 0\r\n\r\n"
	if _, err := io.WriteString(nc, request); err != nil {
		return nil, false, failure(ctx, err)
	}
	br := bufio.NewReader(io.LimitReader(nc, int64(t.o.MaxHeader)))
	rsp, err := http.ReadResponse(br, &http.Request{Method: http.MethodOptions})
	if err != nil {
		return nil, false, failure(ctx, err)
	}
	// The body is not closed, which would read it to its end: the connection is.
	if rsp.StatusCode == http.StatusBadRequest {
		// Go's and others' servers say so in plain text.
		text, _ := io.ReadAll(io.LimitReader(rsp.Body, 512)) // what is there is enough
		if bytes.Contains(text, []byte("HTTPS")) {
			return nil, false, fmt.Errorf("%w: the peer speaks TLS", transport.ErrProtocol)
		}
	}
	if rsp.StatusCode != http.StatusSwitchingProtocols {
		return nil, false, nil
	}
	if !strings.EqualFold(rsp.Header.Get("Upgrade"), upgradeProtocol) || rsp.Header.Get(headerVersion) != upgradeVersion {
		return nil, false, fmt.Errorf("%w: the peer switched to protocol %.40q of version %.20q, and was asked for %s of version %s",
			transport.ErrProtocol, rsp.Header.Get("Upgrade"), rsp.Header.Get(headerVersion), upgradeProtocol, upgradeVersion)
	}
	if !stop() {
		return nil, false, ctx.Err()
	}
	early, _ = br.Peek(br.Buffered()) // gives what is there
	return append([]byte(nil), early...), true, nc.SetDeadline(time.Time{})
}

// failure tells a peer that is silent or has gone from one that speaks something else.
func failure(ctx context.Context, err error) error {
	var network net.Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &network) && network.Timeout():
		return fmt.Errorf("the peer has not answered the upgrade: %w", err)
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the peer closed the connection: %w", err)
	}
	return fmt.Errorf("%w: the peer does not speak HTTP: %w", transport.ErrProtocol, err)
}
