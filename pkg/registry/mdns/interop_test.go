package mdns_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"testing"
	"time"

	hashimdns "github.com/hashicorp/mdns"
	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"

	"github.com/cb02dfca/micro/pkg/registry/mdns"
)

// asker is a socket of another mDNS implementation, on loopback.
func asker(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	lo := loopback(t)
	if err := ipv4.NewPacketConn(c).SetMulticastInterface(lo); err != nil {
		t.Fatal(err)
	}
	return c
}

func loopback(t *testing.T) *net.Interface {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			return &i
		}
	}
	t.Skip("SKIPPED: no loopback interface")
	return nil
}

// ask sends a question to the group, and gives the answers of the next 100 ms: go-micro's time.
func ask(t *testing.T, c *net.UDPConn, q dns.Msg) (out []*dns.Msg) {
	t.Helper()
	packet, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteToUDP(packet, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDP(buf)
		if err != nil {
			return out
		}
		if from.Port != 5353 {
			t.Errorf("an answer came from port %d", from.Port)
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
}

func question(name string, kind uint16) (q dns.Msg) {
	q.SetQuestion(name, kind)
	q.RecursionDesired = false
	return q
}

func kinds(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		out = append(out, dns.TypeToString[rr.Header().Rrtype])
	}
	return strings.Join(out, " ")
}

// TestGoMicroIsAnswered: go-micro's clients take one node of a packet, drop an answer that does not repeat their
// question as they wrote it, and know an address by the SRV record before it.
func TestGoMicroIsAnswered(t *testing.T) {
	t.Parallel()
	domain := private()
	r := open(t, mdns.Options{Domain: domain})
	for i := range 3 {
		n := at(fmt.Sprintf("127.0.0.1:%d", 8080+i))
		n.ID = fmt.Sprintf("greeter-%d", i)
		if err := r.Register(t.Context(), n, 0); err != nil {
			t.Fatal(err)
		}
	}
	c := asker(t)
	for name, c2 := range map[string]struct {
		q     dns.Msg
		count int
		kinds string
	}{
		"a service":             {question("greeter."+domain+".", dns.TypePTR), 3, "PTR SRV A TXT"},
		"in another case":       {question("GREETER."+domain+".", dns.TypePTR), 3, "PTR SRV A TXT"},
		"the services":          {question("_services."+domain+".", dns.TypePTR), 1, "PTR SRV A TXT"},
		"an instance":           {question("greeter-1.greeter."+domain+".", dns.TypePTR), 1, "SRV A TXT"},
		"an instance's port":    {question("greeter-1.greeter."+domain+".", dns.TypeSRV), 1, "SRV A TXT"},
		"the types":             {question("_services._dns-sd._udp."+domain+".", dns.TypePTR), 2, "PTR"},
		"another service":       {question("auth."+domain+".", dns.TypePTR), 0, ""},
		"another domain":        {question("greeter.example.", dns.TypePTR), 0, ""},
		"an address of no host": {question("vm.", dns.TypeA), 0, ""},
		"a service's address":   {question("greeter."+domain+".", dns.TypeA), 0, ""},
		"DNS-SD":                {question("_micro._tcp."+domain+".", dns.TypePTR), 3, "PTR SRV A TXT"},
		"DNS-SD by service":     {question("greeter._sub._micro._tcp."+domain+".", dns.TypePTR), 3, "PTR SRV A TXT"},
		"DNS-SD by no service":  {question("auth._sub._micro._tcp."+domain+".", dns.TypePTR), 0, ""},
		"an instance of DNS-SD": {question("greeter-2._micro._tcp."+domain+".", dns.TypeSRV), 1, "SRV A"},
		"a host of DNS-SD":      {question("micro-127-0-0-1."+domain+".", dns.TypeA), 1, "A"},
	} {
		answers := ask(t, c, c2.q)
		if len(answers) != c2.count {
			t.Errorf("%s: %d answers, want %d", name, len(answers), c2.count)
		}
		for _, m := range answers {
			if kinds(m) != c2.kinds {
				t.Errorf("%s: answered with %s, want %s", name, kinds(m), c2.kinds)
			}
			if len(m.Question) != 1 || m.Question[0] != c2.q.Question[0] || m.Id != c2.q.Id || !m.Response || !m.Authoritative {
				t.Errorf("%s: the question is not repeated: %v", name, m)
			}
		}
	}
}

// TestWhatIsKnownIsNotAnswered is RFC 6762 section 7.1.
func TestWhatIsKnownIsNotAnswered(t *testing.T) {
	t.Parallel()
	domain := private()
	r := open(t, mdns.Options{Domain: domain})
	if err := r.Register(t.Context(), at("127.0.0.1:80"), 0); err != nil {
		t.Fatal(err)
	}
	for service, instance := range map[string]string{
		"greeter." + domain + ".":     "greeter-1.greeter." + domain + ".",
		"_micro._tcp." + domain + ".": "greeter-1._micro._tcp." + domain + ".",
	} {
		q := question(service, dns.TypePTR)
		q.Answer = []dns.RR{&dns.PTR{Hdr: dns.RR_Header{Name: service, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: 20}, Ptr: instance}}
		if answers := ask(t, asker(t), q); len(answers) != 0 {
			t.Errorf("%s: answered all the same: %v", service, answers[0])
		}
	}
}

// TestResponsesAreNotAnswered: a response that carries a question must not start a storm.
func TestResponsesAreNotAnswered(t *testing.T) {
	t.Parallel()
	domain := private()
	r := open(t, mdns.Options{Domain: domain})
	if err := r.Register(t.Context(), at("127.0.0.1:80"), 0); err != nil {
		t.Fatal(err)
	}
	q := question("greeter."+domain+".", dns.TypePTR)
	q.Response = true
	if answers := ask(t, asker(t), q); len(answers) != 0 {
		t.Errorf("answered: %v", answers[0])
	}
}

// TestHashicorpFindsIt: the client of hashicorp/mdns finds a node as a service of DNS-SD.
func TestHashicorpFindsIt(t *testing.T) {
	t.Parallel()
	domain := private()
	r := open(t, mdns.Options{Domain: domain})
	n := at("127.0.0.1:8080")
	n.ID = "greeter.v1-1"
	if err := r.Register(t.Context(), n, 0); err != nil {
		t.Fatal(err)
	}
	entries := make(chan *hashimdns.ServiceEntry, 16)
	err := hashimdns.Query(&hashimdns.QueryParam{
		Service: "_micro._tcp", Domain: domain, Timeout: 300 * time.Millisecond, Entries: entries,
		Interface: loopback(t), DisableIPv6: true, Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		t.Skipf("SKIPPED: hashicorp/mdns cannot ask here: %v", err)
	}
	close(entries)
	for e := range entries {
		if strings.HasSuffix(e.Name, "._micro._tcp."+domain+".") { // it gives whatever it hears
			if e.Port != 8080 || e.AddrV4.String() != "127.0.0.1" || !strings.Contains(e.Info, "service=greeter") || !strings.Contains(e.Info, "protocol=mucp") {
				t.Errorf("got %+v", e)
			}
			return
		}
	}
	t.Error("not found")
}

// TestGoMicroIsFound stands in for a go-micro v1 process: it announces nothing more, lists its service's name, and
// answers without a question.
func TestGoMicroIsFound(t *testing.T) {
	t.Parallel()
	domain := private()
	c, err := net.ListenMulticastUDP("udp4", loopback(t), &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353})
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = c.Close(); <-ended })
	go func() {
		defer close(ended)
		goMicro(c, domain)
	}()
	r := open(t, mdns.Options{Domain: domain})
	nodes, err := r.List(t.Context())
	if err != nil || len(nodes) != 1 || nodes[0].ID != "old-1" || nodes[0].Address != "127.0.0.1:18080" || nodes[0].Metadata["protocol"] != "grpc" {
		t.Errorf("List gave %+v, %v", nodes, err)
	}
	nodes, err = r.Get(t.Context(), "old")
	if err != nil || len(nodes) != 1 {
		t.Errorf("Get gave %+v, %v", nodes, err)
	}
}

// oldText is {"Service":"old","Version":"1","Endpoints":null,"Metadata":{"protocol":"grpc"}} in go-micro's form.
const oldText = "789c0dca310ac0200c05d0bbfcd9a5ab7bc74e0577d1508490484cbb8877afe3833771937dad1022942b0212d9682adbc7d629b56b131f88f232075ce4b966cf8813ddd4b528effb582f58eb070b371a8c"

// goMicro answers as go-micro v1 does until the socket is closed.
func goMicro(c *net.UDPConn, domain string) {
	h := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name + "." + domain + ".", Rrtype: kind, Class: dns.ClassINET, Ttl: 120}
	}
	host := dns.RR_Header{Name: "vm.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 120}
	answers := map[string][]dns.RR{
		"_services": {
			&dns.PTR{Hdr: h("_services", dns.TypePTR), Ptr: "old._services." + domain + "."},
			&dns.SRV{Hdr: h("old._services", dns.TypeSRV), Port: 9999, Target: "vm."},
			&dns.A{Hdr: host, A: net.IPv4zero},
			&dns.TXT{Hdr: h("old._services", dns.TypeTXT), Txt: []string{""}},
		},
		"old": {
			&dns.PTR{Hdr: h("old", dns.TypePTR), Ptr: "old-1.old." + domain + "."},
			&dns.SRV{Hdr: h("old-1.old", dns.TypeSRV), Port: 18080, Target: "vm."},
			&dns.A{Hdr: host, A: net.IPv4(127, 0, 0, 1)},
			&dns.TXT{Hdr: h("old-1.old", dns.TypeTXT), Txt: []string{oldText}},
		},
	}
	buf := make([]byte, 9000)
	for {
		n, from, err := c.ReadFromUDP(buf)
		if err != nil {
			return
		}
		var q dns.Msg
		if q.Unpack(buf[:n]) != nil || q.Response {
			continue
		}
		for _, one := range q.Question {
			name, ok := strings.CutSuffix(one.Name, "."+domain+".")
			if !ok || answers[name] == nil {
				continue
			}
			m := dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Compress: true, Answer: answers[name]}
			if packet, err := m.Pack(); err == nil {
				_, _ = c.WriteToUDP(packet, from)
			}
		}
	}
}
