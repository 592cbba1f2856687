package dns

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
)

func sample() registry.Node {
	return registry.Node{ID: "greeter-1", Service: "greeter", Version: "1.2.3", Address: "127.0.0.1:80", Metadata: map[string]string{"größe": `日本"語\`, "k": "v=w"},
		Endpoints: []registry.Endpoint{{Name: "Say.Hello", Metadata: map[string]string{"doc": "Says\nhello."}}}}
}

// over sends a record through the wire.
func over(t testing.TB, rr *wire.TXT) *wire.TXT {
	t.Helper()
	m := wire.Msg{Answer: []wire.RR{rr}}
	buf, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var back wire.Msg
	if err := back.Unpack(buf); err != nil {
		t.Fatal(err)
	}
	return back.Answer[0].(*wire.TXT)
}

func TestRecord(t *testing.T) {
	t.Parallel()
	n, until := sample(), time.UnixMilli(1700000000123)
	for range 200 { // from the clear to compressed
		n.Endpoints = append(n.Endpoints, registry.Endpoint{Name: fmt.Sprint("Say.Hello", len(n.Endpoints))})
		c, err := encode(n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(over(t, write("x.", "me", 3*time.Second, until, c)), nil)
		if err != nil || !got.node.Equal(n) || got.owner != "me" || got.ttl != 3*time.Second || !got.until.Equal(until) {
			t.Fatalf("%d endpoints came back as %+v, %v", len(n.Endpoints), got, err)
		}
	}
}

func TestEscape(t *testing.T) {
	t.Parallel()
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	for _, s := range []string{"", `\`, `"`, `\\065`, "a=b", string(all[:200]), string(all[100:])} {
		if got := unescape(escape(s)); got != s {
			t.Errorf("%q became %q", s, got)
		}
		if got := unescape(over(t, &wire.TXT{Hdr: header("x.", wire.TypeTXT, 0), Txt: []string{escape(s)}}).Txt[0]); got != s {
			t.Errorf("%q went over the wire as %q", s, got)
		}
	}
}

func TestRefusedRecords(t *testing.T) {
	t.Parallel()
	head := []string{"micro=1", "owner=a", "ttl=1000", "until=1"}
	json := `j={"name":"a","nodes":[{"id":"b","address":"c"}]}`
	bomb := deflate(strings.Repeat(" ", 100*registry.MaxRecord))
	for name, txt := range map[string][]string{
		"nothing": nil, "no pair": {"v"}, "no node": head, "no format": append(head[1:4:4], json), "another format": {"micro=2", "owner=a", "ttl=1000", "until=1", json},
		"no ttl": {"micro=1", "owner=a", "until=1", json}, "a ttl of nothing": {"micro=1", "owner=a", "ttl=0", "until=1", json},
		"a ttl for ever": {"micro=1", "owner=a", "ttl=9223372036854775807", "until=1", json}, "a time before time": {"micro=1", "owner=a", "ttl=1", "until=-1", json},
		"no owner": {"micro=1", "ttl=1000", "until=1", json}, "two codings": append(head[:4:4], json, "z=x"), "no JSON": append(head[:4:4], "j=x"),
		"not compressed": append(head[:4:4], "z=xyz"), "a bomb": parts(head[:4:4], keyDeflate, bomb), "a bad node": append(head[:4:4], `j={"name":"a","nodes":[{"id":"..","address":"c"}]}`),
	} {
		for i := range txt {
			txt = append(txt[:i:i], append([]string{escape(unescape(txt[i]))}, txt[i+1:]...)...)
		}
		if got, err := read(&wire.TXT{Txt: txt}, nil); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: read gave %+v, %v", name, got, err)
		}
	}
	if got, err := read(&wire.TXT{Txt: append(head, escape(json), "later=unknown")}, nil); err != nil || got.node.ID != "b" {
		t.Errorf("a good one gave %+v, %v", got, err)
	}
}

// FuzzRecord: whatever stands in a TXT record, reading it gives a valid node or an error, and what was read is written alike.
func FuzzRecord(f *testing.F) {
	for _, n := range []registry.Node{sample(), {ID: "b", Service: "a", Address: "c"}} {
		c, err := encode(n)
		if err != nil {
			f.Fatal(err)
		}
		rr := write("x.", "me", time.Second, time.UnixMilli(1), c)
		buf, _ := (&wire.Msg{Answer: []wire.RR{rr}}).Pack()
		f.Add(buf)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var m wire.Msg
		if m.Unpack(data) != nil {
			return
		}
		for _, rr := range m.Answer {
			one, ok := rr.(*wire.TXT)
			if !ok {
				continue
			}
			got, err := read(one, nil)
			if err != nil {
				continue
			}
			if err := registry.Validate(got.node); err != nil {
				t.Fatalf("read gave an invalid node: %v", err)
			}
			c, err := encode(got.node)
			if err != nil {
				continue // its JSON is longer than what stood there
			}
			again, err := read(over(t, write("x.", got.owner, got.ttl, got.until, c)), nil)
			if err != nil || !again.node.Equal(got.node) && got.node.Endpoints != nil && again.node.Endpoints != nil {
				t.Fatalf("%+v came back as %+v, %v", got, again, err)
			}
		}
	})
}

func TestLabels(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, name := range []string{"a", "A", "a.b", "a/b", "a-b", "a_b", "UPPER", "upper", strings.Repeat("x", 63), strings.Repeat("x", 64), strings.Repeat("X", 63), strings.Repeat("x", 128), strings.Repeat("a.", 100) + "b"} {
		l := label(name, maxLabel)
		buf := make([]byte, 300)
		n, err := wire.PackDomainName(l+".", buf, 0, nil, false)
		if err != nil || n > maxLabel+2 || bytes.IndexByte(buf[1:n-1], 0) >= 0 || int(buf[0]) != n-2 {
			t.Errorf("%q gives the label %q: %d bytes, %v", name, l, n, err)
		}
		if other, twice := seen[strings.ToLower(l)]; twice {
			t.Errorf("%q and %q have the same label %q", name, other, l)
		}
		seen[strings.ToLower(l)] = name
	}
}
