package worker

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/bench/internal/cell"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a peer without a network.
type fake struct {
	op    func(caller int) error
	serve error
}

func (f fake) Serve(_ cell.Cell, delivered *Counter) (Place, error) {
	delivered.Shard(0).Add(5) // before the measured part
	return Place{Address: "here"}, f.serve
}

func (f fake) Dial(c cell.Cell, at Place) ([]Op, error) {
	if at.Address != "here" {
		return nil, errors.New("told a wrong place")
	}
	var ops []Op
	for i := range c.Callers {
		ops = append(ops, func() error { return f.op(i) })
	}
	return ops, nil
}

// talk is a dialogue whose other end is the test's.
type talk struct {
	t     *testing.T
	in    *io.PipeWriter
	lines *bufio.Reader
	ended chan error
}

func converse(t *testing.T, run func(*dialogue) error) *talk {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	k := &talk{t: t, in: inW, lines: bufio.NewReader(outR), ended: make(chan error, 1)}
	go func() {
		err := run(&dialogue{in: bufio.NewReader(inR), out: json.NewEncoder(outW)})
		_ = outW.Close()
		k.ended <- err
	}()
	return k
}

func (k *talk) say(word string) {
	k.t.Helper()
	if _, err := io.WriteString(k.in, word+"\n"); err != nil {
		k.t.Fatal(err)
	}
}

func (k *talk) read(v any) {
	k.t.Helper()
	line, err := k.lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, v)
	}
	if err != nil {
		k.t.Fatalf("reading an answer: %v; the dialogue: %v", err, <-k.ended)
	}
}

func (k *talk) close() error {
	_ = k.in.Close()
	return <-k.ended
}

func parsed(t *testing.T, text string) cell.Cell {
	t.Helper()
	c, err := cell.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestClientCountsWhatIsBetweenBeginAndEnd: calls take a millisecond of a clock that nothing else moves, so it is known how
// many there are in 60 of them.
func TestClientCountsWhatIsBetweenBeginAndEnd(t *testing.T) {
	t.Parallel()
	for text, each := range map[string]int64{"16/1/1": 60, "16/20/1": 60, "16/4/1@2000": 30, "16/4/1@40000": 60} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { countCalls(t, parsed(t, text), each) })
		})
	}
}

func countCalls(t *testing.T, c cell.Cell, each int64) {
	const window = 60 * time.Millisecond
	var calls atomic.Int64
	p := fake{op: func(int) error { calls.Add(1); time.Sleep(time.Millisecond); return nil }}
	k := converse(t, func(s *dialogue) error { return s.client(p, c, 20*time.Millisecond) })
	k.say(`{"address":"here"}`)
	var r Ready
	k.read(&r)
	if calls.Load() == 0 || r.Error != "" || r.Usage.RSS == 0 {
		t.Errorf("%d calls in the warm-up, %+v", calls.Load(), r)
	}
	k.say("begin")
	k.read(&r)
	time.Sleep(window)
	k.say("end")
	var s Sample
	k.read(&s)
	want, callers := each*int64(c.Callers), int64(c.Callers)
	if s.Ops < want-callers || s.Ops > want+callers || s.Seconds != window.Seconds() || s.Error != "" {
		t.Errorf("got %+v, want about %d calls in %v", s, want, window)
	}
	if len(s.Quantiles) != 3 || c.Rate <= 2000 && (s.Quantiles[0] < 970 || s.Quantiles[2] > 1030) {
		t.Errorf("quantiles %v of calls that take a millisecond", s.Quantiles)
	}
	// Ten times as many calls are due as can be made, so each counts from long before it began.
	if c.Rate == 40000 && s.Quantiles[0] < 20_000 {
		t.Errorf("quantiles %v of calls that are all late", s.Quantiles)
	}
	if err := k.close(); err != nil {
		t.Error(err)
	}
}

func TestClientTellsOfFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, tellOfFailures)
}

func tellOfFailures(t *testing.T) {
	p := fake{op: func(i int) error {
		time.Sleep(time.Millisecond)
		if i == 1 {
			return errors.New("broken")
		}
		return nil
	}}
	k := converse(t, func(s *dialogue) error { return s.client(p, parsed(t, "16/2/1"), 30*time.Millisecond) })
	k.say(`{"address":"here"}`)
	var r Ready
	k.read(&r)
	k.say("begin")
	k.read(&Ready{})
	k.say("end")
	var s Sample
	k.read(&s)
	if !strings.Contains(r.Error, "caller 1: broken") || !strings.Contains(s.Error, "caller 1: broken") {
		t.Errorf("when warm %q, at the end %q", r.Error, s.Error)
	}
	if err := k.close(); err != nil {
		t.Error(err)
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	k := converse(t, func(s *dialogue) error {
		err := s.server(fake{}, parsed(t, "16/1/1"))
		s.delivered.Shard(3).Add(1)
		return err
	})
	var at Place
	k.read(&at)
	k.say("begin")
	k.read(&Ready{})
	k.say("end")
	var s Sample
	k.read(&s)
	if at.Address != "here" || s.Delivered != 0 || s.Usage.RSS == 0 || s.Usage.PeakRSS < s.Usage.RSS {
		t.Errorf("at %+v: %+v", at, s)
	}
	if err := k.close(); err != nil {
		t.Error(err)
	}
}

func TestServerSaysThatItIsUnfit(t *testing.T) {
	t.Parallel()
	k := converse(t, func(s *dialogue) error { return s.server(fake{serve: ErrUnfit}, parsed(t, "16/1/1")) })
	var at Place
	if k.read(&at); !at.Unfit {
		t.Errorf("got %+v", at)
	}
	if err := k.close(); err != nil {
		t.Error(err)
	}
}

func TestUnknownWord(t *testing.T) {
	t.Parallel()
	k := converse(t, func(s *dialogue) error { return s.server(fake{}, parsed(t, "16/1/1")) })
	k.read(&Place{})
	k.say("dance")
	if err := k.close(); err == nil || !strings.Contains(err.Error(), "dance") {
		t.Errorf("got %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	want := Payload(100)
	if err := Check(Payload(100), want); err != nil {
		t.Error(err)
	}
	short, other := Payload(99), Payload(100)
	other[95]++
	if Check(short, want) == nil || Check(other, want) == nil || Check(nil, want) == nil {
		t.Error("a wrong answer passes")
	}
	if err := Check(nil, nil); err != nil {
		t.Error(err)
	}
}

func TestCertificateIsTrusted(t *testing.T) {
	t.Parallel()
	server, der, err := Certificate()
	if err != nil {
		t.Fatal(err)
	}
	client, err := Place{Certificate: der}.TLS()
	if err != nil || client.RootCAs == nil || len(server.Certificates) != 1 {
		t.Errorf("got %v, %v", client, err)
	}
	if none, err := (Place{}).TLS(); none != nil || err != nil {
		t.Errorf("without a certificate: got %v, %v", none, err)
	}
}
