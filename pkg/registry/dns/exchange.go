package dns

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	wire "github.com/miekg/dns"
)

const (
	udpSize  = 1232 // that passes without being cut into pieces
	udpTries = 2    // before TCP is tried
	udpTime  = time.Second
	window   = 32 // questions on one connection that have no answer yet, at most
	fudge    = 300
)

// way is how the nameservers are reached.
type way struct {
	first atomic.Int64 // the server that answered last
}

var (
	errUnsigned = errors.New("its answer is not signed with the key")
	errStray    = errors.New("an answer to another question")
	errCut      = errors.New("its answer is cut short")
	errLate     = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
)

// notSent is the error of a message that no server has seen.
type notSent struct{ error }

func (e notSent) Unwrap() error { return e.error }

// ask gives the answers to questions, from the first server that gives them. One goes by UDP, and by TCP where that does not
// do; several share a connection. The error is in this package's terms.
func (r *Registry) ask(ctx context.Context, questions ...*wire.Msg) ([]*wire.Msg, error) {
	if len(questions) == 0 {
		return nil, nil
	}
	answers := make([]*wire.Msg, len(questions))
	err := r.try(ctx, int(r.way.first.Load()), func(ctx context.Context, server string) error {
		if err := r.collect(ctx, server, questions, answers); err != nil {
			return err
		}
		for _, a := range answers {
			if err := r.judge(a); err != nil {
				clear(answers)
				return err
			}
		}
		return nil
	})
	return answers, err
}

// update has a zone changed, by TCP. Where the connection breaks off nobody knows whether it was.
func (r *Registry) update(ctx context.Context, m *wire.Msg) error {
	return r.try(ctx, 0, func(ctx context.Context, server string) error {
		answers := make([]*wire.Msg, 1)
		if err := r.overTCP(ctx, server, []*wire.Msg{m}, answers, 1); err != nil {
			return err
		}
		return r.judge(answers[0])
	})
}

// try does something with the servers in turn, beginning with one, until it goes well, each within its share of Timeout. An update
// that comes twice finds at the second time that the records changed. The error is the first server's.
func (r *Registry) try(ctx context.Context, first int, do func(ctx context.Context, server string) error) error {
	bounded, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	deadline, _ := bounded.Deadline()
	var failed error
	for i, n := 0, len(r.o.Servers); i < n && bounded.Err() == nil; i++ {
		at := (first + i) % n
		share, cancel := context.WithTimeout(bounded, time.Until(deadline)/time.Duration(n-i))
		err := do(share, r.o.Servers[at])
		cancel()
		if err == nil {
			r.way.first.Store(int64(at))
			r.heard(nil)
			return nil
		}
		if isPrerequisite(err) {
			return err
		}
		if failed == nil {
			failed = err
		}
	}
	switch {
	case r.life.Err() != nil && ctx.Err() != nil:
		return ctx.Err() // the caller knows whether it was Close
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case isRefusal(failed):
		return failed
	case failed == nil || bounded.Err() != nil:
		failed = errLate
	}
	err := r.unavailable(failed)
	r.heard(err)
	return err
}

// collect gets the answers of one server that are still missing.
func (r *Registry) collect(ctx context.Context, server string, questions, answers []*wire.Msg) error {
	if len(questions) == 1 && !r.o.TCP && r.o.TLS == nil {
		a, err := r.overUDP(ctx, server, questions[0])
		if err == nil && !a.Truncated {
			answers[0] = a
			return nil
		}
		if ctx.Err() != nil {
			return errLate
		}
	}
	for width := window; ; {
		before := missing(answers)
		err := r.overTCP(ctx, server, questions, answers, width)
		switch left := missing(answers); {
		case left == 0:
			return nil
		case ctx.Err() != nil || errors.As(err, new(notSent)):
			return err
		case left < before: // it answers only so many on one connection
		case left > 1 && width > 1: // it may have hung up after one, and what it said was lost with that
			width = 1
		default:
			return err
		}
	}
}

func missing(answers []*wire.Msg) int {
	n := 0
	for _, a := range answers {
		if a == nil {
			n++
		}
	}
	return n
}

// overUDP asks once or twice.
func (r *Registry) overUDP(ctx context.Context, server string, m *wire.Msg) (*wire.Msg, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server)
	if err != nil {
		return nil, reason(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, wire.MaxMsgSize)
	for range udpTries {
		out, mac, err := r.pack(m)
		if err != nil {
			return nil, err
		}
		if _, err := conn.Write(out); err != nil {
			return nil, reason(err)
		}
		until := time.Now().Add(udpTime)
		if d, ok := ctx.Deadline(); ok && time.Until(d)/3 < udpTime {
			until = time.Now().Add(time.Until(d) / 3)
		}
		_ = conn.SetReadDeadline(until)
		for ctx.Err() == nil {
			n, err := conn.Read(buf)
			if t := (net.Error)(nil); errors.As(err, &t) && t.Timeout() {
				break
			} else if err != nil {
				return nil, reason(err)
			}
			if a, err := r.unpack(buf[:n], m, mac); err == nil {
				return a, nil
			} // else it may be anybody's: the server's own may yet come
		}
	}
	return nil, errLate
}

// overTCP asks over one connection what has no answer yet, so many questions at a time, and fills in the answers.
func (r *Registry) overTCP(ctx context.Context, server string, questions, answers []*wire.Msg, width int) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", server)
	if err == nil && r.o.TLS != nil {
		conn, err = handshake(ctx, conn, r.o.TLS, server)
	}
	if err != nil {
		return notSent{reason(err)}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	p := pipe{r: r, conn: conn, waiting: map[uint16]question{}}
	for i, m := range questions {
		if answers[i] != nil {
			continue
		}
		if err := p.send(i, m); err != nil {
			return reason(err)
		}
		for len(p.waiting) >= width {
			if err := p.receive(answers); err != nil {
				return reason(err)
			}
		}
	}
	for len(p.waiting) > 0 {
		if err := p.receive(answers); err != nil {
			return reason(err)
		}
	}
	return nil
}

func handshake(ctx context.Context, conn net.Conn, config *tls.Config, server string) (net.Conn, error) {
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(server)
	}
	t := tls.Client(conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return t, nil
}

// pipe is a connection with questions that have no answer yet, by id.
type pipe struct {
	r       *Registry
	conn    net.Conn
	waiting map[uint16]question
}

type question struct {
	at  int
	m   *wire.Msg
	mac string
}

func (p *pipe) send(at int, m *wire.Msg) error {
	out, mac, err := p.r.pack(m)
	for err == nil && p.waiting[m.Id].m != nil { // another has the id
		out, mac, err = p.r.pack(m)
	}
	if err != nil {
		return err
	}
	p.waiting[m.Id] = question{at, m, mac}
	_, err = p.conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
	return err
}

func (p *pipe) receive(answers []*wire.Msg) error {
	var size [2]byte
	if _, err := io.ReadFull(p.conn, size[:]); err != nil {
		return err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(p.conn, buf); err != nil {
		return err
	}
	if len(buf) < 12 {
		return errCut
	}
	id := binary.BigEndian.Uint16(buf)
	q, ok := p.waiting[id]
	if !ok {
		return errStray
	}
	a, err := p.r.unpack(buf, q.m, q.mac)
	if err != nil {
		return err
	}
	if a.Truncated {
		return errCut
	}
	delete(p.waiting, id)
	answers[q.at] = a
	return nil
}

// pack gives a message with a new id, signed where there is a key. mac is what the answer's signature goes by.
func (r *Registry) pack(m *wire.Msg) (out []byte, mac string, err error) {
	m.Id = wire.Id()
	if r.o.Key.Name == "" {
		out, err = m.Pack()
	} else {
		signed := *m
		signed.Extra = append(m.Extra[:len(m.Extra):len(m.Extra)], &wire.TSIG{
			Hdr:       wire.RR_Header{Name: r.o.Key.Name, Rrtype: wire.TypeTSIG, Class: wire.ClassANY},
			Algorithm: r.o.Key.Algorithm, TimeSigned: uint64(time.Now().Unix()), Fudge: fudge, OrigId: m.Id,
		})
		out, mac, err = wire.TsigGenerate(&signed, r.o.Key.Secret, "", false)
	}
	if err == nil && len(out) > wire.MaxMsgSize {
		err = fmt.Errorf("a message of %d bytes, limit %d", len(out), wire.MaxMsgSize)
	}
	return out, mac, err
}

// unpack reads an answer to m, and checks that it is one, and signed as it should be.
func (r *Registry) unpack(buf []byte, m *wire.Msg, mac string) (*wire.Msg, error) {
	a := new(wire.Msg)
	if err := a.Unpack(buf); err != nil {
		return nil, fmt.Errorf("its answer cannot be read: %w", err)
	}
	if a.Id != m.Id || !a.Response || a.Opcode != m.Opcode || !sameQuestion(a, m) {
		return nil, errStray
	}
	if r.o.Key.Name == "" {
		return a, nil
	}
	t := a.IsTsig()
	switch {
	case a.Rcode != wire.RcodeSuccess && a.Rcode != wire.RcodeNameError && (t == nil || t.MACSize == 0):
		return a, nil // a server that knows no key, or not this one, cannot sign that it does not want to
	case t == nil || wire.CanonicalName(t.Hdr.Name) != r.o.Key.Name:
		return nil, errUnsigned
	}
	if err := wire.TsigVerify(buf, r.o.Key.Secret, mac, false); err != nil && t.Error != wire.RcodeBadTime {
		return nil, fmt.Errorf("%w: %w", errUnsigned, err)
	}
	return a, nil
}

// sameQuestion: servers leave the question out where they could not read it, and of updates.
func sameQuestion(a, m *wire.Msg) bool {
	if len(a.Question) == 0 && (a.Rcode != wire.RcodeSuccess || m.Opcode == wire.OpcodeUpdate) {
		return true
	}
	return len(a.Question) == 1 && len(m.Question) == 1 && a.Question[0].Qtype == m.Question[0].Qtype &&
		a.Question[0].Qclass == m.Question[0].Qclass && strings.EqualFold(a.Question[0].Name, m.Question[0].Name)
}

// query makes a question.
func query(name string, kind uint16) *wire.Msg {
	m := new(wire.Msg)
	m.SetQuestion(name, kind)
	m.SetEdns0(udpSize, false)
	return m
}
