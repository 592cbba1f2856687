// Package worker is the process in which a peer serves or calls. The bench starts one for each end of a measurement, and
// talks with it in lines: on its standard input a word, on its standard output an answer in JSON.
//
//	server:  prints its Place when it listens
//	client:  reads the Place, calls for the warm-up, prints Ready
//	both:    "begin" and "end" are answered by a Ready and a Sample; the end of input ends the process
package worker

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/bench/internal/cell"
)

// Op is what a caller does again and again: one call there and back, one message received, or some published. It is for
// one goroutine at a time. It checks what it got.
type Op func() error

// Place says where a server is.
type Place struct {
	Address string `json:"address,omitempty"`
	// Certificate is what a TLS server shows, for the client to trust: DER.
	Certificate []byte `json:"certificate,omitempty"`
	// Extra is a peer's own: what its client needs beside.
	Extra json.RawMessage `json:"extra,omitempty"`
	// Unfit says that the peer has no such cell: its Serve gave ErrUnfit.
	Unfit bool `json:"unfit,omitempty"`
}

// Peer is a way of calling, both ends of it.
type Peer interface {
	// Serve starts the server for c and returns when it listens. It serves until the process ends.
	Serve(c cell.Cell, delivered *Counter) (Place, error)
	// Dial connects to a server and gives the operation of each of c's callers.
	Dial(c cell.Cell, at Place) ([]Op, error)
}

// ErrUnfit is returned by Serve for cells that the peer does not have. They are left out of the tables.
var ErrUnfit = errors.New("this peer has no such thing")

// Listen has serve take the connections of a free port of loopback, and gives its place.
func Listen(serve func(net.Listener)) (Place, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return Place{}, err
	}
	go serve(l)
	return Place{Address: l.Addr().String()}, nil
}

// Counter counts what subscribers get. Each has a shard, so that counting does not slow them.
type Counter struct{ shards [64]shard }

type shard struct {
	atomic.Int64
	_ [120]byte // two cache lines, since they are fetched in pairs
}

// Shard is the counter of the i-th subscriber.
func (c *Counter) Shard(i int) *atomic.Int64 { return &c.shards[i%len(c.shards)].Int64 }

func (c *Counter) sum() (n int64) {
	for i := range c.shards {
		n += c.shards[i].Load()
	}
	return n
}

// Ready answers "begin", and tells that a client is warm.
type Ready struct {
	Usage Usage  `json:"usage"` // since the process began
	Error string `json:"error,omitempty"`
}

// Sample answers "end": what was between "begin" and "end".
type Sample struct {
	Seconds   float64   `json:"seconds"`
	Usage     Usage     `json:"usage"`
	Ops       int64     `json:"ops,omitempty"`       // of a client: operations done
	Quantiles []float64 `json:"quantiles,omitempty"` // of a client's calls: p50, p99, p999 in µs
	Delivered int64     `json:"delivered,omitempty"` // of a server: messages that subscribers got
	Error     string    `json:"error,omitempty"`
}

// Main runs the process of one of peers, as the command line says.
func Main(peers map[string]Peer) {
	role := flag.String("role", "server", "server or client")
	name := flag.String("peer", "", "one of "+strings.Join(slices.Sorted(maps.Keys(peers)), ", "))
	text := flag.String("cell", "1k/64/1", "the load")
	warm := flag.Duration("warm", 500*time.Millisecond, "how long a client calls before it is ready")
	profile := flag.String("profile", "", "file for a CPU profile of what is measured")
	flag.Parse()
	if err := run(peers, *role, *name, *text, *warm, *profile); err != nil {
		fmt.Fprintf(os.Stderr, "%s %s of %s: %v\n", *name, *role, *text, err)
		os.Exit(1)
	}
}

func run(peers map[string]Peer, role, name, text string, warm time.Duration, profile string) error {
	c, err := cell.Parse(text)
	if err != nil {
		return err
	}
	p, ok := peers[name]
	if !ok {
		return fmt.Errorf("unknown peer: want one of %s", strings.Join(slices.Sorted(maps.Keys(peers)), ", "))
	}
	if err := needFiles(max(c.Conns, c.Callers)); err != nil {
		return err
	}
	s := &dialogue{in: bufio.NewReader(os.Stdin), out: json.NewEncoder(os.Stdout), profile: profile}
	if role == "client" {
		return s.client(p, c, warm)
	}
	return s.server(p, c)
}

// dialogue is the talk with the bench.
type dialogue struct {
	in  *bufio.Reader
	out *json.Encoder

	profile   string  // a file's name, or empty
	load      *load   // of a client
	delivered Counter // of a server
	before    Usage   // at "begin"
	count     int64   // delivered by then
	began     time.Time
}

func (s *dialogue) server(p Peer, c cell.Cell) error {
	at, err := p.Serve(c, &s.delivered)
	if errors.Is(err, ErrUnfit) {
		return s.out.Encode(Place{Unfit: true})
	}
	if err != nil {
		return err
	}
	if err := s.out.Encode(at); err != nil {
		return err
	}
	return s.answer()
}

func (s *dialogue) client(p Peer, c cell.Cell, warm time.Duration) error {
	var at Place
	line, err := s.in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the server's place: %w", err)
	}
	if err := json.Unmarshal(line, &at); err != nil {
		return fmt.Errorf("reading the server's place: %w", err)
	}
	ops, err := p.Dial(c, at)
	if err != nil {
		return err
	}
	if c.Kind == cell.Idle { // one call on each, and then rest
		for i, op := range ops {
			if err := op(); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
		ops = nil
	}
	s.load = start(c, ops)
	time.Sleep(warm)
	if err := s.out.Encode(s.ready()); err != nil {
		return err
	}
	return s.answer()
}

func (s *dialogue) ready() Ready {
	u, err := look(false)
	r := Ready{Usage: u}
	if s.load != nil {
		err = errors.Join(err, s.load.failure())
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// answer answers the bench's words until it has no more.
func (s *dialogue) answer() error {
	for {
		line, err := s.in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch word := strings.TrimSpace(line); word {
		case "begin":
			err = s.begin()
		case "end":
			err = s.end()
		default:
			err = fmt.Errorf("unknown word %q", word)
		}
		if err != nil {
			return err
		}
	}
}

func (s *dialogue) begin() (err error) {
	if s.profile != "" {
		f, err := os.Create(s.profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil { // it writes to f until the process ends
			return err
		}
	}
	if s.before, err = look(true); err != nil {
		return err
	}
	s.began, s.count = time.Now(), s.delivered.sum()
	if s.load != nil {
		s.load.phase.Store(measuring)
	}
	return s.out.Encode(Ready{Usage: s.before})
}

func (s *dialogue) end() error {
	if s.load != nil {
		s.load.phase.Store(stopped)
	}
	out := Sample{Seconds: time.Since(s.began).Seconds(), Delivered: s.delivered.sum() - s.count}
	now, err := look(false)
	if err != nil {
		return err
	}
	out.Usage = now.Since(s.before)
	pprof.StopCPUProfile()
	if s.load != nil {
		if err := s.finish(&out); err != nil {
			out.Error = err.Error()
		}
	}
	return s.out.Encode(out)
}

// patience is how long the last operation of each caller is waited for. Those of a subscription may never end.
const patience = 10 * time.Second

func (s *dialogue) finish(out *Sample) error {
	ended := make(chan struct{})
	go func() { s.load.work.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		return fmt.Errorf("callers still wait for answers %v after the end", patience)
	}
	out.Ops = s.load.ops.Load()
	if s.load.cell.Kind == cell.Call {
		out.Quantiles = s.load.quantiles(0.5, 0.99, 0.999)
	}
	return s.load.failure()
}
