package nats_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/nats"
)

// A NATS that is not there is told of with its address and the reason, at once, and is found when it comes.
func TestAway(t *testing.T) {
	t.Parallel()
	if err := testserver.NATSMissing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	s := testserver.New(t.TempDir(), testserver.NATS())
	t.Cleanup(func() { s.Stop("KILL") })
	tr := open(t, nats.Options{Servers: []string{s.Addr}})
	_, dialErr := tr.Dial(t.Context(), "somebody")
	if want := `transport: not sent: dial "somebody": NATS at ` + s.Addr + " is not answering: connection refused"; dialErr == nil || dialErr.Error() != want || !transport.NotSent(dialErr) {
		t.Errorf("Dial gave %v, want %s", dialErr, want)
	}
	if _, err := tr.Listen(t.Context(), ""); err == nil || !strings.Contains(err.Error(), s.Addr+" is not answering: connection refused") {
		t.Errorf("Listen gave %v", err)
	}
	s.MustStart(t)
	eventually(t, "it listens", func() bool { l, err := tr.Listen(t.Context(), "somebody"); return err == nil && l.Addr() == "somebody" })
	c, err := tr.Dial(t.Context(), "somebody")
	must(t, err)
	must(t, c.Close())
}

// Subjects are taken by who listens, in whichever process.
func TestAddresses(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	one, other := open(t, nats.Options{Servers: []string{addr}}), open(t, nats.Options{Servers: []string{addr}})
	name := strings.ToLower(t.Name()) + "-" + strings.TrimPrefix(natsgo.NewInbox(), natsgo.InboxPrefix)
	l, err := one.Listen(t.Context(), name)
	must(t, err)
	if _, err := other.Listen(t.Context(), name); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a second Listen gave %v", err)
	}
	must(t, l.Close())
	l, err = other.Listen(t.Context(), name)
	must(t, err)
	must(t, other.Close())
	if _, err := other.Listen(t.Context(), ""); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Listen after Close gave %v", err)
	}
	if _, err := other.Dial(t.Context(), name); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Dial after Close gave %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Accept after the transport's Close gave %v", err)
	}
	for _, bad := range []string{"a b", "a..b", ".a", "*", "a.>"} {
		if _, err := one.Dial(t.Context(), bad); !transport.NotSent(err) || !strings.Contains(err.Error(), "no subject") {
			t.Errorf("Dial of %q gave %v", bad, err)
		}
		if _, err := one.Listen(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "no subject") {
			t.Errorf("Listen on %q gave %v", bad, err)
		}
	}
}

// peer is an end that a test speaks for, by frames: it met what dialled it.
type peer struct {
	t      *testing.T
	c      *natsgo.Conn
	own    string
	to     string
	frames *natsgo.Subscription
}

// meet has tr dial a peer, which says nothing more.
func meet(t *testing.T, tr *nats.Transport, addr string) (transport.Conn, *peer) {
	t.Helper()
	c, err := natsgo.Connect("nats://" + addr)
	must(t, err)
	t.Cleanup(c.Close)
	p := &peer{t: t, c: c, own: c.NewInbox()}
	hellos, err := c.SubscribeSync(p.own + ".listen")
	must(t, err)
	p.frames, err = c.SubscribeSync(p.own)
	must(t, err)
	must(t, c.Flush())
	go func() {
		if m, err := hellos.NextMsg(wait); err == nil {
			p.to = m.Reply[:strings.LastIndex(m.Reply, ".")]
			_ = c.PublishRequest(m.Reply, p.own+".0", []byte{1, 2})
			_ = c.Flush()
		}
	}()
	conn, err := tr.Dial(t.Context(), p.own+".listen")
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn, p
}

// part sends a whole small message.
func (p *peer) part(seq uint32, body string) {
	b := make([]byte, 32)
	b[0], b[1], b[3] = 1, 6, byte(transport.Reply)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], seq)
	binary.BigEndian.PutUint32(b[12:], seq)
	binary.BigEndian.PutUint32(b[28:], uint32(len(body)))
	must(p.t, p.c.Publish(p.to, append(b, body...)))
}

func recv(t *testing.T, c transport.Conn) (*transport.Message, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), wait)
	defer stop()
	m := new(transport.Message)
	return m, c.Recv(ctx, m)
}

// A peer that is silent though it is asked is lost, whatever NATS knows of it.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	c, p := meet(t, open(t, nats.Options{Servers: []string{addr}, Heartbeat: 100 * time.Millisecond}), addr)
	begun := time.Now()
	for range 3 {
		m, err := p.frames.NextMsg(wait)
		must(t, err)
		if m.Data[1] != 10 {
			t.Fatalf("a silent peer was sent the frame %x", m.Data)
		}
		must(t, p.c.Publish(p.to, []byte{1, 11}))
	}
	if _, err := recv(t, c); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "has been silent") {
		t.Errorf("Recv gave %v", err)
	}
	if took := time.Since(begun); took < 500*time.Millisecond {
		t.Errorf("it was lost after %v, though it answered three times", took)
	}
	if err := c.Send(t.Context(), &transport.Message{Kind: transport.Call, ID: 1}); !transport.NotSent(err) {
		t.Errorf("Send gave %v, want ErrNotSent", err)
	}
}

// A frame that NATS has lost ends the connection, and what came before it is received.
func TestLostFrame(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	c, p := meet(t, open(t, nats.Options{Servers: []string{addr}}), addr)
	p.part(1, "first")
	p.part(3, "third")
	if m, err := recv(t, c); err != nil || string(m.Body) != "first" {
		t.Errorf("the first message came as %q, %v", m.Body, err)
	}
	if _, err := recv(t, c); !errors.Is(err, transport.ErrProtocol) || !strings.Contains(err.Error(), "frame 3 where 2 is next") {
		t.Errorf("Recv gave %v", err)
	}
	if m, err := p.frames.NextMsg(wait); err != nil || m.Data[1] != 9 {
		t.Errorf("the peer is not told: %v", err)
	}
}

// What is no frame ends a connection, and nothing else.
func TestJunk(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	tr := open(t, nats.Options{Servers: []string{addr}})
	for name, data := range map[string][]byte{
		"nothing": nil, "another version": {2, 6}, "a short part": {1, 6, 0, 2, 0, 0, 0, 1},
		"a part that goes on with nothing": append([]byte{1, 6, 2, 2, 0, 0, 0, 1}, make([]byte, 10)...),
		"a header longer than all":         append([]byte{1, 6, 0, 2, 0, 0, 0, 1}, append(make([]byte, 18), 1, 0, 0, 0, 0, 0)...),
		"credit for what was not sent":     {1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0},
	} {
		c, p := meet(t, tr, addr)
		must(t, p.c.Publish(p.to, data))
		if _, err := recv(t, c); !errors.Is(err, transport.ErrProtocol) {
			t.Errorf("%s gave %v, want ErrProtocol", name, err)
		}
	}
	l, err := tr.Listen(t.Context(), "")
	must(t, err)
	raw, err := natsgo.Connect("nats://" + addr)
	must(t, err)
	defer raw.Close()
	for _, data := range [][]byte{nil, {1}, {1, 77}, {1, 1}} {
		must(t, raw.Publish(l.Addr(), data))
		must(t, raw.PublishRequest(l.Addr(), "elsewhere", data))
	}
	must(t, raw.Flush())
	c, err := tr.Dial(t.Context(), l.Addr())
	must(t, err)
	must(t, c.Close())
}

// A peer that does not read holds up its sender, and not those of other connections.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	tr := open(t, nats.Options{Servers: []string{addr}})
	blocked, _ := meet(t, tr, addr)
	sent := 0
	for {
		ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := blocked.Send(ctx, &transport.Message{Kind: transport.Call, ID: uint32(sent + 1), Body: make([]byte, 10_000)})
		stop()
		if err != nil {
			if !transport.NotSent(err) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Send gave %v", err)
			}
			break
		}
		sent++
	}
	if bytes := sent * 10_000; bytes > 1<<20 || bytes < 1<<19 {
		t.Errorf("%d bytes were sent to a peer that does not read", bytes)
	}
	l, err := tr.Listen(t.Context(), "")
	must(t, err)
	go func() {
		if c, err := l.Accept(); err == nil {
			echo(c)
		}
	}()
	c, err := tr.Dial(t.Context(), l.Addr())
	must(t, err)
	calls := transport.NewCaller(c)
	defer calls.Close()
	var rsp transport.Message
	must(t, calls.Call(t.Context(), &transport.Message{Body: make([]byte, 3<<20)}, &rsp))
}

const password = "s3cret-word"

func TestLogin(t *testing.T) { // not parallel: it sets the environment
	s := own(t, `authorization: {users: [{user: svc, password: "`+password+`", permissions: {publish: "_INBOX.>", subscribe: "_INBOX.>"}}, {user: guest, password: "`+password+`", permissions: {publish: "elsewhere", subscribe: "elsewhere"}}]}`)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	for _, name := range []string{nats.EnvUsername, nats.EnvPassword, nats.EnvToken, nats.EnvCreds} {
		t.Setenv(name, "")
	}
	for _, tt := range []struct {
		query string
		code  status.Code
		text  string
	}{
		{"", status.Unauthenticated, "it asks for a login: set NATS_USERNAME and NATS_PASSWORD"},
		{"?credentials-file=" + file("wrong", "svc:wrong-"+password), status.Unauthenticated, `user "svc": wrong name or password`},
		{"?credentials-file=" + file("guest", "guest:"+password), status.PermissionDenied, `user "guest": `},
		{"?credentials-file=" + file("right", "svc:"+password), 0, ""},
	} {
		tr, err := transport.Openers{"nats": nats.Open}.Open(t.Context(), "nats://"+s.Addr+tt.query)
		must(t, err)
		_, listenErr := tr.Listen(t.Context(), "")
		_, dialErr := tr.Dial(t.Context(), "_INBOX.nobody")
		for what, err := range map[string]error{"Listen": listenErr, "Dial": dialErr} {
			switch {
			case tt.code == 0 && what == "Listen":
				must(t, err)
			case tt.code == 0:
				if !transport.NotSent(err) || !strings.Contains(err.Error(), "nobody listens there") {
					t.Errorf("Dial gave %v", err)
				}
			case !errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), s.Addr):
				t.Errorf("%s gave %v, want %v and %q", what, err, tt.code, tt.text)
			}
			if err != nil && strings.Contains(err.Error(), password) {
				t.Errorf("%s tells the password: %v", what, err)
			}
		}
		must(t, tr.(io.Closer).Close())
	}
}

func TestTLSAndToken(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	s := own(t, `tls: {cert_file: "`+cert+`", key_file: "`+key+`", ca_file: "`+ca+`", verify: true}`, `authorization: {token: "`+password+`"}`)
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte(password+"\n"), 0o600))
	for query, want := range map[string]string{
		"?token-file=" + token + "&ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key: "",
		"?token-file=" + token + "&tls=true":                                                  "certificate signed by unknown authority",
		"?token-file=" + token:                                                                "is not answering",
		"?ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key:                          "it asks for a login",
	} {
		tr, err := transport.Openers{"nats": nats.Open}.Open(t.Context(), "nats://"+s.Addr+query)
		must(t, err)
		if _, err := tr.Listen(t.Context(), ""); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: Listen gave %v, want %q", query, err, want)
		}
		must(t, tr.(io.Closer).Close())
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"nats": "", "nats://h,i:1?max-message=100&tls=true": "",
		"nats://svc:s3cret@h:1":   "credentials do not belong in a URL",
		"nats://h/path":           "want nats://host:port",
		"nats://h?max-message=0":  `max-message "0" is no number of bytes`,
		"nats://h?max-message=1m": `max-message "1m" is no number of bytes`,
		"nats://h?x=y":            `unknown parameter "x", nats takes: max-message, credentials-file, token-file, tls, ca-file, cert-file, key-file`,
	} {
		tr, err := transport.Openers{"nats": nats.Open}.Open(t.Context(), raw)
		if err == nil {
			must(t, tr.(io.Closer).Close())
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s gave %v, want %q", raw, err, want)
		}
	}
	if _, err := nats.New(nats.Options{Heartbeat: -1}); err == nil {
		t.Error("a negative heartbeat is taken")
	}
}
