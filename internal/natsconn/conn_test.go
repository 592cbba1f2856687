package natsconn_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "s3cret-word"

var words = natsconn.Words{Interface: "test", Unavailable: errors.New("test: unavailable"), Closed: errors.New("test: closed")}

// own starts a server for a test.
func own(t *testing.T, config ...string) *testserver.Server {
	t.Helper()
	if err := testserver.NATSMissing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	return testserver.Own(t, testserver.NATS(config...))
}

// open makes a connection to addr until the end of the test.
func open(t *testing.T, o natsconn.Options, addr string) *natsconn.Conn {
	t.Helper()
	o.Servers, o.Words = []string{addr}, words
	c, err := natsconn.New(o)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func messages(subjects ...string) []*nats.Msg {
	ms := make([]*nats.Msg, len(subjects))
	for i, s := range subjects {
		ms[i] = &nats.Msg{Subject: s, Data: []byte("x")}
	}
	return ms
}

// While the server is away what is published fails, at once and with the reason; afterwards subscriptions stand by themselves, and get
// nothing of it.
func TestAway(t *testing.T) {
	t.Parallel()
	s := own(t)
	up, down := make(chan *nats.Conn, 100), make(chan error, 100)
	c := open(t, natsconn.Options{Up: func(nc *nats.Conn) { up <- nc }, Down: func(err error) { down <- err }}, s.Addr)
	nc, err := c.Get(t.Context())
	must(t, err)
	got := make(chan *nats.Msg, 100)
	sub, err := nc.ChanSubscribe("a", got)
	must(t, err)
	defer sub.Unsubscribe()
	must(t, c.Publish(t.Context(), messages("a", "b", "a")...))
	for range 2 {
		<-got
	}
	<-up
	s.Stop("KILL")
	<-down
	for range 5 {
		err := c.Publish(t.Context(), messages("a")...)
		if !errors.Is(err, words.Unavailable) || !strings.Contains(err.Error(), s.Addr+" is not answering") {
			t.Errorf("Publish without a server gave %v", err)
		}
	}
	if err := c.Publish(t.Context(), messages("a")...); !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Publish without a server gave %v", err)
	}
	if err := nc.PublishMsg(messages("a")[0]); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("nats.go's own publish without a server gave %v, want that it keeps nothing", err)
	}
	s.MustStart(t)
	if again := <-up; again != nc {
		t.Error("the connection that came back is another one")
	}
	must(t, c.Publish(t.Context(), &nats.Msg{Subject: "a", Data: []byte("last")}))
	if m := <-got; string(m.Data) != "last" || len(got) != 0 {
		t.Errorf("got %q, and %d more: what failed was published later", m.Data, len(got))
	}
}

// A Publish whose connection breaks fails, though the next connection answers its PING.
func TestBreaks(t *testing.T) {
	t.Parallel()
	s := own(t)
	relay := testserver.NewRelay(t, s.Addr)
	c := open(t, natsconn.Options{}, relay.Addr)
	_, err := c.Get(t.Context())
	must(t, err)
	watcher := open(t, natsconn.Options{}, s.Addr)
	nc, err := watcher.Get(t.Context())
	must(t, err)
	var mu sync.Mutex
	got := map[string]bool{}
	sub, err := nc.Subscribe("a", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		got[string(m.Data)] = true
	})
	must(t, err)
	defer sub.Unsubscribe()
	must(t, nc.Flush())
	stop := make(chan struct{})
	breaker := sync.WaitGroup{}
	breaker.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond): // it breaks off what is under way
				relay.Kill()
				relay.Revive()
			}
		}
	})
	breaker.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond):
				_ = c.Current() // while nats.go dials
			}
		}
	})
	well, failed := []string{}, 0
	for n := 0; failed < 20 || len(well) < 20; n++ {
		id := strings.Repeat("x", n%1000) + "-" + time.Now().String()
		switch err := c.Publish(t.Context(), &nats.Msg{Subject: "a", Data: []byte(id)}); {
		case err == nil:
			well = append(well, id)
		case errors.Is(err, words.Unavailable):
			failed++
		default:
			t.Fatalf("Publish gave %v", err)
		}
	}
	close(stop)
	breaker.Wait()
	must(t, nc.Flush())
	must(t, watcher.Publish(t.Context(), messages("end")...))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		missing := 0
		mu.Lock()
		for _, id := range well {
			if !got[id] {
				missing++
			}
		}
		mu.Unlock()
		if missing == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d messages were confirmed, and lost", missing, len(well))
		}
	}
}

// The answer of a later connection confirms nothing of an earlier one.
func TestConfirmedByAnother(t *testing.T) {
	t.Parallel()
	s := own(t)
	relay := testserver.NewRelay(t, s.Addr)
	up := make(chan *nats.Conn, 10)
	c := open(t, natsconn.Options{Up: func(nc *nats.Conn) { up <- nc }}, relay.Addr)
	nc, err := c.Get(t.Context())
	must(t, err)
	<-up
	before := nc.Stats().Reconnects
	must(t, c.Confirm(t.Context(), nc, before))
	relay.Kill()
	relay.Revive()
	<-up
	if err := c.Confirm(t.Context(), nc, before); !errors.Is(err, words.Unavailable) {
		t.Errorf("what was sent before the connection broke is confirmed: %v", err)
	}
	live, stop := c.While(t.Context())
	defer stop()
	relay.Kill()
	<-live.Done()
	if err := context.Cause(live); !errors.Is(c.Error(err), words.Unavailable) {
		t.Errorf("the cause is %v", err)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	user := own(t, `authorization: {users: [{user: svc, password: "`+secret+`", permissions: {publish: "free.>"}}]}`)
	token := own(t, `authorization: {token: "`+secret+`"}`)
	for _, tt := range []struct {
		name    string
		server  *testserver.Server
		o       natsconn.Options
		subject string
		code    status.Code
		text    string
	}{
		{"no user", user, natsconn.Options{}, "free.a", status.Unauthenticated, "it asks for a login: set NATS_USERNAME and NATS_PASSWORD, or NATS_TOKEN, or credentials-file"},
		{"wrong password", user, natsconn.Options{Username: "svc", Password: "wrong-" + secret}, "free.a", status.Unauthenticated, `user "svc": wrong name or password`},
		{"right password", user, natsconn.Options{Username: "svc", Password: secret}, "free.a", 0, ""},
		{"no permission", user, natsconn.Options{Username: "svc", Password: secret}, "other", status.PermissionDenied, `user "svc": it may not publish to "other": the server's configuration gives permissions`},
		{"wrong token", token, natsconn.Options{Token: "wrong-" + secret}, "a", status.Unauthenticated, "wrong token"},
		{"right token", token, natsconn.Options{Token: secret}, "a", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var said strings.Builder
			tt.o.Logger = slog.New(slog.NewTextHandler(&said, nil))
			c := open(t, tt.o, tt.server.Addr)
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					err := c.Publish(t.Context(), messages(tt.subject)...)
					if tt.code == 0 && err != nil {
						t.Errorf("Publish: %v", err)
					}
					if tt.code != 0 && (!errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), secret)) {
						t.Errorf("Publish gave %v, want %v and %q", err, tt.code, tt.text)
					}
				})
			}
			wg.Wait()
			c.Close()
			if strings.Contains(said.String(), secret) {
				t.Errorf("the logger was told the secret: %s", said.String())
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	s := own(t, `tls: {cert_file: "`+cert+`", key_file: "`+key+`", ca_file: "`+ca+`", verify: true}`)
	plain := own(t)
	for _, tt := range []struct {
		name, query, err string
		server           *testserver.Server
	}{
		{"both", "?ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key, "", s},
		{"no authority", "?tls=true", "certificate signed by unknown authority", s},
		{"no certificate", "?ca-file=" + ca, "is not answering", s},
		{"no TLS", "", "certificate signed by unknown authority", s},
		{"no TLS there", "?tls=true", "it does not speak TLS", plain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse("nats://" + tt.server.Addr + tt.query)
			must(t, err)
			o, _, err := natsconn.Parse(u, words)
			must(t, err)
			c, err := natsconn.New(o)
			must(t, err)
			defer c.Close()
			switch err := c.Publish(t.Context(), messages("a")...); {
			case tt.err == "":
				must(t, err)
			case !errors.Is(err, words.Unavailable) || !strings.Contains(err.Error(), tt.err):
				t.Errorf("Publish gave %v, want %q", err, tt.err)
			}
		})
	}
}

func TestParse(t *testing.T) { // not parallel: it sets the environment
	for _, name := range []string{natsconn.EnvUsername, natsconn.EnvPassword, natsconn.EnvToken, natsconn.EnvCreds} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	good := file("good", "svc:a:b c\n")
	for _, tt := range []struct{ raw, err string }{
		{"nats://", ""},
		{"nats://h", ""},
		{"nats://h,i:1/?stream=x", ""},
		{"nats://[::1]:4222", ""},
		{"nats://h?credentials-file=" + good, ""},
		{"nats://h?token-file=" + file("token", "s3cret\n"), ""},
		{"nats://h?tls=true", ""},
		{"nats://svc:s3cret@h:1", "credentials do not belong in a URL: use credentials-file or token-file, or NATS_USERNAME"},
		{"nats:h:1", "want nats://host:port"},
		{"nats://h/path", "want nats://host:port"},
		{"nats://h,,i", `server ""`},
		{"nats://h:0", `server "h:0"`},
		{"nats://h?streem=1s", `unknown parameter "streem", nats takes: stream, credentials-file, token-file, tls, ca-file, cert-file, key-file`},
		{"nats://h?credentials-file=" + filepath.Join(dir, "none"), "credentials file: open"},
		{"nats://h?credentials-file=" + file("bad", "s3cret\n"), "want one line, name:password"},
		{"nats://h?credentials-file=" + file("creds", "-----BEGIN NATS USER JWT-----\ns3cret\n------END NATS USER JWT------\n"), "want a user's JWT and key"},
		{"nats://h?credentials-file=" + good + "&token-file=" + good, "both credentials-file and token-file are given"},
		{"nats://h?ca-file=" + good, "holds no certificate"},
	} {
		u, err := url.Parse(tt.raw)
		must(t, err)
		o, _, err := natsconn.Parse(u, words, "stream")
		if err == nil {
			var c *natsconn.Conn
			if c, err = natsconn.New(o); err == nil {
				c.Close()
			}
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.raw, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), "test: ")):
			t.Errorf("%s gave %v, want %q", tt.raw, err, tt.err)
		case err != nil && strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%s tells the password: %v", tt.raw, err)
		}
	}
	t.Setenv(natsconn.EnvUsername, "svc")
	t.Setenv(natsconn.EnvPassword, secret)
	o, _, err := natsconn.Parse(&url.URL{Scheme: "nats"}, words)
	if err != nil || o.Username != "svc" || o.Password != secret {
		t.Errorf("from the environment came user %q, %v", o.Username, err)
	}
	t.Setenv(natsconn.EnvToken, secret)
	if o, _, err = natsconn.Parse(&url.URL{Scheme: "nats"}, words); err == nil {
		_, err = natsconn.New(o)
	}
	if err == nil || !strings.Contains(err.Error(), "more than one login is given") {
		t.Errorf("a user and a token gave %v", err)
	}
}

// A subscription of a connection that nats.go gives up for good, as after an error of the server that it does not know, stands again at the
// next, and so do further calls.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	var serving sync.WaitGroup
	defer serving.Wait()
	defer l.Close()
	serving.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { speak(conn, n == 0) })
		}
	})
	up := make(chan *nats.Conn, 10)
	c := open(t, natsconn.Options{Up: func(nc *nats.Conn) { up <- nc }}, l.Addr().String())
	got := make(chan *nats.Msg, 10)
	sub, err := c.Subscribe(t.Context(), "a", "", -1, func(m *nats.Msg) { got <- m })
	must(t, err)
	first := <-up
	if again := <-up; again == first {
		t.Error("the connection is the same")
	}
	must(t, c.Publish(t.Context(), messages("a")...))
	<-got
	sub.Close()
	c.Close()
}

// speak serves a connection as NATS does: what is published comes back to the last subscription. angry ends it, once there is one.
func speak(conn net.Conn, angry bool) {
	defer conn.Close()
	fmt.Fprint(conn, "INFO {\"max_payload\":1000,\"headers\":true,\"proto\":1}\r\n")
	sid := ""
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		switch words := strings.Fields(lines.Text()); words[0] {
		case "PING":
			fmt.Fprint(conn, "PONG\r\n")
			if angry && sid != "" {
				fmt.Fprint(conn, "-ERR 'Something New'\r\n")
			}
		case "SUB":
			sid = words[len(words)-1]
		case "PUB":
			lines.Scan()
			fmt.Fprintf(conn, "MSG %s %s %d\r\n%s\r\n", words[1], sid, len(lines.Text()), lines.Text())
		}
	}
}

// Nobody there: the first use says so, Close ends it, and a context that ends is told as such.
func TestNobody(t *testing.T) {
	t.Parallel()
	c := open(t, natsconn.Options{}, testserver.FreeAddr())
	if _, err := c.Get(t.Context()); !errors.Is(err, words.Unavailable) || !strings.HasSuffix(err.Error(), "is not answering: connection refused") {
		t.Errorf("Get gave %v", err)
	}
	c.Close()
	if _, err := c.Get(t.Context()); !errors.Is(err, words.Closed) {
		t.Errorf("after Close Get gave %v", err)
	}
	silent := open(t, natsconn.Options{Timeout: time.Minute}, silence(t))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := silent.Get(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get gave %v", err)
	}
	silent.Close() // at once
}

// silence gives the address of something that accepts, and says nothing.
func silence(t *testing.T) string {
	t.Helper()
	s := testserver.NewRelay(t, testserver.FreeAddr())
	s.Hold()
	return s.Addr
}

// TestClosedBeforeItStands: a proxy that takes connections and has no server to give them to is no reason to wait.
func TestClosedBeforeItStands(t *testing.T) {
	t.Parallel()
	way := testserver.NewRelay(t, own(t).Addr)
	c := open(t, natsconn.Options{}, way.Addr)
	_, err := c.Get(t.Context())
	must(t, err)
	way.Kill()
	begun := time.Now()
	for err = nil; err == nil; _, err = c.Get(t.Context()) { // until the loss is noticed
	}
	if took := time.Since(begun); !errors.Is(err, words.Unavailable) || took > natsconn.DefaultTimeout {
		t.Errorf("Get gave %v after %v", err, took)
	}
	way.Revive()
	for ; err != nil; _, err = c.Get(t.Context()) {
	}
}
