package mdns_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"

	"github.com/cb02dfca/micro/internal/netspace"
	"github.com/cb02dfca/micro/pkg/registry"
)

// bridged makes two machines on one link: 10.77.0.1 and 10.77.0.2, interface "lan" in each.
func bridged(t *testing.T) (a, b *netspace.Machine) {
	t.Helper()
	lan := netspace.NewLAN(t, 2)
	return lan.Machines[0], lan.Machines[1]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventuallyLists polls by fresh processes until a list has want nodes.
func eventuallyLists(t *testing.T, m *netspace.Machine, url string, want int) []registry.Node {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		p := start(t, m, role{Do: "list", URL: url})
		nodes := p.nodes()
		p.stop()
		if len(nodes) == want {
			return nodes
		}
		if time.Now().After(deadline) {
			t.Fatalf("list gave %v, want %d nodes", nodes, want)
		}
	}
}

func TestOnlyLoopbackAndNoRoute(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"mdns://", "mdns://?scope=lan"} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			m := netspace.New(t)
			watch := start(t, m, role{Do: "watch", URL: url})
			watch.until(0)
			serve := start(t, m, role{Do: "serve", URL: url, Node: at("127.0.0.1:8080")})
			serve.line()
			watch.until(1)
			if nodes := eventuallyLists(t, m, url, 1); !nodes[0].Equal(at("127.0.0.1:8080")) {
				t.Errorf("list gave %+v", nodes)
			}
			get := start(t, m, role{Do: "get", URL: url, Get: "greeter"})
			get.until(1)
			serve.stop() // its goodbye
			watch.until(0)
		})
	}
}

func TestLAN(t *testing.T) {
	t.Parallel()
	a, b := bridged(t)
	const lan = "mdns://?scope=lan"
	watch := start(t, b, role{Do: "watch", URL: lan})
	watch.until(0)
	n := at("10.77.0.1:8080")
	serve := start(t, a, role{Do: "serve", URL: lan, Node: n, Lease: 2 * time.Second})
	serve.line()
	if nodes := watch.until(1); !nodes[0].Equal(n) {
		t.Errorf("watch gave %+v, want %+v", nodes, n)
	}
	if nodes := eventuallyLists(t, b, lan, 1); !nodes[0].Equal(n) {
		t.Errorf("list gave %+v, want %+v", nodes, n)
	}
	eventuallyLists(t, b, "mdns://?scope=lan&iface=lan", 1)
	eventuallyLists(t, a, lan, 1)
	eventuallyLists(t, b, "mdns://", 0) // a host hears only itself
	killed := time.Now()
	serve.kill()
	watch.until(0)
	if gone := time.Since(killed); gone > 3*time.Second {
		t.Errorf("a killed node went after %v, its records' ttl is 2 s", gone)
	}
}

func TestAddressesThatAreNotBelieved(t *testing.T) {
	t.Parallel()
	a, b := bridged(t)
	const lan = "mdns://?scope=lan"
	for _, address := range []string{"10.99.0.1:80", "169.254.169.254:80", "10.77.0.2:80", "127.0.0.1:80"} {
		n := at(address)
		n.ID = fmt.Sprintf("greeter-%d", len(address))
		start(t, a, role{Do: "serve", URL: lan, Node: n}).line()
	}
	good := at("10.77.0.1:80")
	start(t, a, role{Do: "serve", URL: lan, Node: good}).line()
	if nodes := eventuallyLists(t, b, lan, 1); nodes[0].ID != good.ID {
		t.Errorf("list gave %v", nodes)
	}
}

// TestHostScopeLeavesNothing listens on the other end of a link, and asks there, in every way that is answered on
// loopback.
func TestHostScopeLeavesNothing(t *testing.T) {
	t.Parallel()
	a, b := bridged(t)
	var ear *net.UDPConn // hears all multicast of the link, and asks from port 5353
	var mouth *net.UDPConn
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	must(t, b.Do(func() (err error) {
		lan, err := net.InterfaceByName("lan")
		if err != nil {
			return err
		}
		if ear, err = net.ListenMulticastUDP("udp4", lan, group); err != nil {
			return err
		}
		mouth, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 77, 0, 2)})
		return err
	}))
	defer ear.Close()
	defer mouth.Close()
	must(t, b.IP("route add 224.0.0.0/4 dev lan"))
	must(t, a.IP("route add default dev lan")) // multicast's usual way out

	serve := start(t, a, role{Do: "serve", URL: "mdns://", Node: at("127.0.0.1:8080")})
	serve.line()
	eventuallyLists(t, a, "mdns://", 1)
	for _, name := range []string{"greeter.micro.", "_services.micro.", "_nodes.micro.", "_micro._tcp.local.", "_services._dns-sd._udp.local."} {
		var q dns.Msg
		q.SetQuestion(name, dns.TypePTR)
		packet, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*net.UDPConn{mouth, ear} {
			if _, err := c.WriteToUDP(packet, group); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := responses(t, mouth, 300*time.Millisecond, 1); n != 0 {
		t.Error("a question from beyond the machine was answered")
	}
	serve.stop() // its goodbye
	if n := responses(t, ear, 300*time.Millisecond, 1); n != 0 {
		t.Error("an announcement, an answer or a goodbye left the machine")
	}
}

func TestMulticastImpossible(t *testing.T) {
	t.Parallel()
	m := netspace.New(t)
	must(t, m.IP("link set lo down"))
	for _, do := range []role{{Do: "serve", Node: at("127.0.0.1:80")}, {Do: "list"}, {Do: "get", Get: "greeter"}, {Do: "watch"}} {
		do.URL = "mdns://"
		p := start(t, m, do)
		for p.lines.Scan() {
			t.Errorf("%s with every interface down gave %s", do.Do, p.lines.Text())
		}
		if err := p.cmd.Wait(); err == nil || !strings.Contains(p.stderr.String(), "registry: unavailable: mdns: ") || !strings.Contains(p.stderr.String(), "lo is down") {
			t.Errorf("%s: %v, %s", do.Do, err, &p.stderr)
		}
	}
}

// TestHostScopeAnswersInside: another responder of the same machine, such as avahi, asks from port 5353 on the link. It
// is answered by multicast, and the link sees the question alone.
func TestHostScopeAnswersInside(t *testing.T) {
	t.Parallel()
	a, b := bridged(t)
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	sockets := map[*netspace.Machine]*net.UDPConn{}
	for _, m := range []*netspace.Machine{a, b} {
		must(t, m.Do(func() error {
			lan, err := net.InterfaceByName("lan")
			if err != nil {
				return err
			}
			c, err := net.ListenMulticastUDP("udp4", lan, group)
			if err != nil {
				return err
			}
			sockets[m] = c
			p := ipv4.NewPacketConn(c)
			return errors.Join(p.SetMulticastLoopback(true), p.SetMulticastInterface(lan))
		}))
		defer sockets[m].Close()
	}
	start(t, a, role{Do: "serve", URL: "mdns://", Node: at("127.0.0.1:8080")}).line()
	q := question("_micro._tcp.local.", dns.TypePTR)
	packet, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sockets[a].WriteToUDP(packet, group); err != nil {
		t.Fatal(err)
	}
	if got := responses(t, sockets[a], 5*time.Second, 1); got != 1 {
		t.Error("the machine's own responder got no answer")
	}
	if got := responses(t, sockets[b], 200*time.Millisecond, 1); got != 0 {
		t.Error("the answer left the machine")
	}
}

// responses counts the responses that a socket hears, until there are most or the time is over.
func responses(t *testing.T, c *net.UDPConn, wait time.Duration, most int) (count int) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 9000)
	for count < most {
		n, _, err := c.ReadFromUDP(buf)
		if err != nil {
			break
		}
		var m dns.Msg
		if err := m.Unpack(buf[:n]); err != nil {
			t.Fatal(err)
		}
		if m.Response {
			count++
		}
	}
	return count
}
