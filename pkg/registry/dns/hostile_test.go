package dns_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/dns"
	"github.com/cb02dfca/micro/pkg/status"
)

// nameserver runs a nameserver in this process, by UDP and TCP on one address, until the end of the test.
func nameserver(t *testing.T, handle func(w wire.ResponseWriter, q *wire.Msg, tcp bool)) (addr string) {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil { // another has the port
			_ = l.Close()
			continue
		}
		for _, s := range []*wire.Server{{Listener: l}, {PacketConn: p}} {
			tcp := s.Listener != nil
			s.Handler = wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) { handle(w, q, tcp) })
			s.MsgAcceptFunc = func(wire.Header) wire.MsgAcceptAction { return wire.MsgAccept }
			started, done := make(chan struct{}), make(chan error, 1)
			s.NotifyStartedFunc = func() { close(started) }
			go func() { done <- s.ActivateAndServe() }()
			<-started
			t.Cleanup(func() { _ = s.Shutdown(); <-done })
		}
		return l.Addr().String()
	}
}

// reply answers with records.
func reply(q *wire.Msg, rcode int, rrs ...wire.RR) *wire.Msg {
	a := new(wire.Msg)
	a.SetRcode(q, rcode)
	a.Answer = rrs
	return a
}

func rr(t *testing.T, format string, args ...any) wire.RR {
	t.Helper()
	one, err := wire.NewRR(fmt.Sprintf(format, args...))
	must(t, err)
	return one
}

// good answers as a nameserver with one SRV record does.
func good(t *testing.T, q *wire.Msg) *wire.Msg {
	if name := "_greeter._tcp.svc.test."; strings.EqualFold(q.Question[0].Name, name) && q.Question[0].Qtype == wire.TypeSRV {
		a := reply(q, wire.RcodeSuccess, rr(t, "%s 5 SRV 0 0 80 web.svc.test.", name))
		a.Extra = []wire.RR{rr(t, "web.svc.test. 5 A 10.0.0.1")}
		return a
	}
	return reply(q, wire.RcodeNameError)
}

func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	base := "svc.test."
	long := strings.Repeat("x", 60)
	for _, tt := range []struct {
		name   string
		handle func(w wire.ResponseWriter, q *wire.Msg, tcp bool)
		want   error // nil: the node is found
		text   string
	}{
		{"a good one", func(w wire.ResponseWriter, q *wire.Msg, _ bool) { _ = w.WriteMsg(good(t, q)) }, nil, ""},
		{"cut short by UDP", func(w wire.ResponseWriter, q *wire.Msg, tcp bool) {
			if a := good(t, q); tcp {
				_ = w.WriteMsg(a)
			} else {
				a.Truncated, a.Answer, a.Extra = true, nil, nil
				_ = w.WriteMsg(a)
			}
		}, nil, ""},
		{"cut short by TCP too", func(w wire.ResponseWriter, q *wire.Msg, _ bool) {
			a := good(t, q)
			a.Truncated = true
			_ = w.WriteMsg(a)
		}, registry.ErrUnavailable, "cut short"},
		{"others' answers before it", func(w wire.ResponseWriter, q *wire.Msg, tcp bool) {
			if !tcp {
				evil := reply(q, wire.RcodeSuccess, rr(t, "%s 5 SRV 0 0 666 evil.svc.test.", q.Question[0].Name))
				evil.Id++
				_ = w.WriteMsg(evil)
				evil.Id, evil.Question[0].Name = q.Id, "elsewhere.test."
				_ = w.WriteMsg(evil)
				evil.Question, evil.Response = q.Question, false
				_ = w.WriteMsg(evil)
				_, _ = w.Write([]byte{byte(q.Id >> 8), byte(q.Id), 0x80, 0, 0, 9})
			}
			_ = w.WriteMsg(good(t, q))
		}, nil, ""},
		{"another id by TCP", func(w wire.ResponseWriter, q *wire.Msg, tcp bool) {
			if tcp {
				q.Id++
				_ = w.WriteMsg(good(t, q))
			}
		}, registry.ErrUnavailable, "another question"},
		{"garbage by TCP", func(w wire.ResponseWriter, q *wire.Msg, tcp bool) {
			if tcp {
				_, _ = w.Write([]byte{byte(q.Id >> 8), byte(q.Id), 0x80, 0, 0, 1, 0, 9, 0, 9, 0, 9, 0xc0, 0x0c})
			}
		}, registry.ErrUnavailable, "cannot be read"},
		{"nothing by UDP", func(w wire.ResponseWriter, q *wire.Msg, tcp bool) {
			if tcp {
				_ = w.WriteMsg(good(t, q))
			}
		}, nil, ""},
		{"nothing at all", func(wire.ResponseWriter, *wire.Msg, bool) {}, registry.ErrUnavailable, "no answer in time"},
		{"it hangs up", func(w wire.ResponseWriter, _ *wire.Msg, _ bool) { _ = w.Close() }, registry.ErrUnavailable, "is not answering"},
		{"no such name", func(w wire.ResponseWriter, q *wire.Msg, _ bool) { _ = w.WriteMsg(reply(q, wire.RcodeNameError)) }, registry.ErrNotFound, ""},
		{"it fails", func(w wire.ResponseWriter, q *wire.Msg, _ bool) { _ = w.WriteMsg(reply(q, wire.RcodeServerFailure)) }, registry.ErrUnavailable, "it failed (SERVFAIL)"},
		{"it refuses", func(w wire.ResponseWriter, q *wire.Msg, _ bool) { _ = w.WriteMsg(reply(q, wire.RcodeRefused)) }, &status.Error{Code: status.PermissionDenied}, "(REFUSED)"},
		{"names in a circle", func(w wire.ResponseWriter, q *wire.Msg, _ bool) {
			name := q.Question[0].Name
			a := reply(q, wire.RcodeSuccess, rr(t, "%s 0 PTR %s", name, name), rr(t, "%s 0 PTR .", name), rr(t, "%s 0 PTR a.elsewhere.test.", name), rr(t, "%s 0 PTR a.b._micro._tcp.svc.test.", name))
			if q.Question[0].Qtype == wire.TypeSRV {
				a.Answer = []wire.RR{rr(t, "%s 0 CNAME b.test.", name), rr(t, "b.test. 0 CNAME c.test."), rr(t, "c.test. 0 CNAME b.test.")}
			}
			_ = w.WriteMsg(a)
		}, registry.ErrNotFound, ""},
		{"what was not asked for", func(w wire.ResponseWriter, q *wire.Msg, _ bool) {
			_ = w.WriteMsg(reply(q, wire.RcodeSuccess, rr(t, "elsewhere.test. 5 SRV 0 0 666 evil.test."), rr(t, "%s 5 A 10.6.6.6", q.Question[0].Name)))
		}, registry.ErrNotFound, ""},
		{"hundreds of names that lead nowhere", func(w wire.ResponseWriter, q *wire.Msg, tcp bool) {
			a := reply(q, wire.RcodeNameError)
			if q.Question[0].Qtype == wire.TypePTR {
				if a.Rcode, a.Truncated = wire.RcodeSuccess, !tcp; tcp {
					a.Compress = true
					for i := range 700 {
						a.Answer = append(a.Answer, rr(t, "%s 5 PTR %s-%d._micro._tcp.%s", q.Question[0].Name, long[:50], i, base))
					}
				}
			}
			_ = w.WriteMsg(a)
		}, registry.ErrNotFound, ""},
		{"one answer a connection", func(w wire.ResponseWriter, q *wire.Msg, tcp bool) {
			if a := good(t, q); q.Question[0].Qtype == wire.TypePTR {
				a.Rcode = wire.RcodeSuccess
				for i := range 5 {
					a.Answer = append(a.Answer, rr(t, "%s 5 PTR n%d._micro._tcp.%s", q.Question[0].Name, i, base))
				}
				_ = w.WriteMsg(a)
			} else {
				_ = w.WriteMsg(a)
			}
			if tcp {
				_ = w.Close()
			}
		}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := open(t, dns.Options{Servers: []string{nameserver(t, tt.handle)}, Zone: zone, Timeout: timeoutOf(tt.name)})
			nodes, err := r.Get(t.Context(), "greeter")
			switch {
			case tt.want == nil && !(err == nil && len(nodes) == 1 && nodes[0].ID == "web.svc.test/80" && nodes[0].Address == "10.0.0.1:80"):
				t.Errorf("Get gave %+v, %v", nodes, err)
			case tt.want != nil && (!errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text)):
				t.Errorf("Get gave %+v, %v, want %v and %q", nodes, err, tt.want, tt.text)
			}
		})
	}
}

// timeoutOf is short where that is what the test waits for.
func timeoutOf(name string) time.Duration {
	if name == "nothing at all" {
		return 600 * time.Millisecond
	}
	return wait
}

// With a key nothing is believed that is not signed with it.
func TestUnsignedAnswers(t *testing.T) {
	t.Parallel()
	var signed atomic.Bool
	addr := nameserver(t, func(w wire.ResponseWriter, q *wire.Msg, _ bool) {
		if signed.Load() {
			q = q.Copy()
			a := good(t, q)
			a.SetTsig(keyName+".", wire.HmacSHA256, 300, time.Now().Unix())
			buf, _, err := wire.TsigGenerate(a, otherSecret, "", false)
			if err == nil {
				_, _ = w.Write(buf)
			}
			return
		}
		_ = w.WriteMsg(good(t, q))
	})
	r := open(t, dns.Options{Servers: []string{addr}, Zone: zone, Key: key, Timeout: time.Second})
	for range 2 {
		if nodes, err := r.Get(t.Context(), "greeter"); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "not signed with the key") {
			t.Errorf("Get gave %+v, %v", nodes, err)
		}
		signed.Store(true)
	}
}

// What an update may be answered with.
func TestHostileUpdates(t *testing.T) {
	t.Parallel()
	for rcode, want := range map[int]struct {
		err  error
		text string
	}{
		wire.RcodeNotImplemented: {&status.Error{Code: status.Unimplemented}, "takes no dynamic updates"},
		wire.RcodeNotAuth:        {&status.Error{Code: status.PermissionDenied}, "is not the primary"},
		wire.RcodeNotZone:        {&status.Error{Code: status.FailedPrecondition}, "NOTZONE"},
		wire.RcodeServerFailure:  {registry.ErrUnavailable, "max-records-per-type"},
		wire.RcodeFormatError:    {registry.ErrUnavailable, "FORMERR"},
		wire.RcodeYXRrset:        {registry.ErrUnavailable, "change too fast"}, // for ever
	} {
		t.Run(wire.RcodeToString[rcode], func(t *testing.T) {
			t.Parallel()
			addr := nameserver(t, func(w wire.ResponseWriter, q *wire.Msg, _ bool) {
				if q.Opcode == wire.OpcodeUpdate {
					_ = w.WriteMsg(reply(q, rcode))
					return
				}
				_ = w.WriteMsg(reply(q, wire.RcodeNameError))
			})
			r := open(t, dns.Options{Servers: []string{addr}, Zone: zone})
			if err := r.Register(t.Context(), node("a"), 0); !errors.Is(err, want.err) || !strings.Contains(err.Error(), want.text) {
				t.Errorf("Register gave %v, want %v and %q", err, want.err, want.text)
			}
		})
	}
}
