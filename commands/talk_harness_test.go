package commands_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// profile is a request with a field of each kind.
type profile struct {
	Name  string            `json:"name" required:"true"`
	Times int32             `json:"times"`
	Ratio float64           `json:"ratio"`
	On    bool              `json:"on"`
	Tags  []string          `json:"tags"`
	Marks []int             `json:"marks"`
	Photo []byte            `json:"photo"`
	User  struct{ Age int } `json:"user"`
	Label map[string]int    `json:"label"`
	Maybe *int              `json:"maybe"`
	Code  int               `json:"code"` // what Say.Hello fails with
}

// talker starts a node of the service that call and stream are tried with. waits, where it is not nil, gets
// "started" from the handler of Say.Wait, and "cancelled" when that is told that its caller has gone.
func (w *world) talker(t *testing.T, id string, waits chan<- string) {
	t.Helper()
	s, err := server.New("greeter", server.Version("1.4.0"), server.NodeID(id))
	if err != nil {
		t.Fatal(err)
	}
	anything := server.Endpoint{Request: new(schema.Schema), Response: new(schema.Schema)}
	raw := func(name string, h server.Handler) error {
		e := anything
		e.Name = name
		return s.Handle(e, h)
	}
	err = errors.Join(
		server.Handle(s, "Say.Hello", func(_ context.Context, r *profile) (*answer, error) {
			switch {
			case r.Code != 0:
				return nil, status.New(status.Code(r.Code), "as asked\x1b[2J")
			case r.Name == "":
				return nil, status.New(status.InvalidArgument, "name is empty")
			}
			return &answer{"Hello " + r.Name}, nil
		}, server.Doc("Greets by name")),
		server.Handle(s, "Say.Profile", func(_ context.Context, r *profile) (*profile, error) { return r, nil }),
		server.HandleBidi(s, "Say.Chat", func(_ context.Context, st *server.Stream[request, answer]) error {
			for r, err := range st.All() {
				if err != nil {
					return err
				}
				if err := st.Send(&answer{"Hello " + r.Name}); err != nil {
					return err
				}
			}
			return nil
		}),
		server.HandleServerStream(s, "Say.Count", func(_ context.Context, r *request, out *server.Sender[map[string]int]) error {
			for n := range r.Times {
				if err := out.Send(&map[string]int{"n": n + 1}); err != nil {
					return err
				}
			}
			if r.Name == "fail" {
				return status.New(status.InvalidArgument, "cannot count further")
			}
			return nil
		}),
		raw("Say.Echo", func(_ context.Context, c *server.Call) error {
			body, err := c.RecvRaw()
			if err != nil {
				return err
			}
			if v := c.Header().Get("x-who"); v != "" {
				_ = c.SetHeader("x-who", v)
			}
			return c.SendRaw(c.ContentType(), body)
		}),
		raw("Say.Text", func(_ context.Context, c *server.Call) error {
			return c.SendRaw("text/plain", []byte("red \x1b[31m\nend"))
		}),
		raw("Say.Bytes", func(_ context.Context, c *server.Call) error {
			return c.SendRaw("application/octet-stream", []byte{0xff, 0})
		}),
		raw("Say.Nothing", func(_ context.Context, c *server.Call) error { return c.SendRaw("application/json", nil) }),
		raw("Say.Panic", func(context.Context, *server.Call) error { panic("oh") }),
		raw("Say.Wait", func(ctx context.Context, _ *server.Call) error {
			if waits != nil {
				waits <- "started"
			}
			<-ctx.Done()
			if waits != nil {
				waits <- "cancelled"
			}
			return ctx.Err()
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, s, id)
	w.register(t, node(id, "greeter", "1.4.0", id+":1", 0), "Say.Hello", "Say.Profile", "Say.Chat", "Say.Count", "Say.Echo", "Say.Text", "Say.Bytes",
		"Say.Nothing", "Say.Panic", "Say.Wait")
}

// stranger is a node that has none of the Debug endpoints, and gives back what it gets.
func (w *world) stranger(t *testing.T, id string) {
	t.Helper()
	w.peer(t, id, answerStrangely)
	w.register(t, node(id, "stranger", "", id+":1", 0))
}

// peer has answer take the messages of each connection to the address made of id, one after the other, until it reports false.
func (w *world) peer(t *testing.T, id string, answer func(transport.Conn) bool) {
	t.Helper()
	l, err := w.transport.Listen(t.Context(), id+":1")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for answer(c) {
			}
			c.Close()
		}
	}()
}

func answerStrangely(c transport.Conn) bool {
	var m transport.Message
	if c.Recv(context.Background(), &m) != nil {
		return false
	}
	reply := transport.Message{Kind: transport.Reply, ID: m.ID, Body: m.Body}
	reply.Header, _ = reply.Header.Set(transport.HeaderContentType, "application/json")
	if strings.HasPrefix(m.Header.Get(transport.HeaderEndpoint), "Debug.") {
		reply.Header, _ = reply.Header.Set(transport.HeaderError, `{"id":"stranger","code":404,"detail":"what?"}`)
	}
	return m.Kind != transport.Call || c.Send(context.Background(), &reply) == nil
}

// talkWorlds are the states in which call, stream, publish and subscribe are run.
var talkWorlds = map[string]func(t *testing.T) *world{
	"ok": func(t *testing.T) *world {
		w := newWorld(t)
		w.talker(t, "greeter-7f3a", nil)
		w.subscribers(t, "topic", 2)
		return w
	},
	"empty": newWorld,
	"down":  worlds["down"],
	"dead":  worlds["dead"],
	"two dead": func(t *testing.T) *world {
		w := worlds["dead"](t)
		w.register(t, node("greeter-91bc", "greeter", "1.4.0", "10.0.0.9:40110", time.Minute), "Say.Hello")
		return w
	},
}

// feed runs the program with something on standard input.
func (w *world) feed(t *testing.T, stdin io.Reader, on terminal, args ...string) outcome {
	t.Helper()
	d, stdout, stderr := w.deps(on, nil, args...)
	d.Stdin, d.StdinTTY, d.StdinData = stdin, false, true
	code := commands.Main(t.Context(), d)
	return outcome{code, stdout.String(), stderr.String()}
}

// times are what differs from one run to the next.
var times = regexp.MustCompile(`· [0-9.]+[µm]?s|waited [0-9.]+m?s|"ms": ?[0-9.]+|[0-9]+ms$|(\t|   )[0-9]+\.[0-9](\t|   )`)

func (o outcome) timeless() outcome {
	o.stdout = times.ReplaceAllString(o.stdout, "TIME")
	o.stderr = times.ReplaceAllString(o.stderr, "TIME")
	return o
}

// untouched is a standard input that nobody may read.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("standard input was read")
	return 0, io.EOF
}

func writeFile(t *testing.T, data string) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "body")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func sameJSON(a, b string) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, []byte(a)) == nil && json.Compact(&y, []byte(b)) == nil && x.String() == y.String()
}
