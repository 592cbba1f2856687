package wire_test

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// capture is one packet of go-micro, rebuilt from its description in testdata: what v1, v2 and v5 of go-micro sent when
// they registered, were asked and left.
type capture struct {
	head   string
	packet []byte
	msg    *dns.Msg
}

func captures(t testing.TB, version string) (out []capture) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", version+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		if !strings.HasPrefix(line, " ") {
			out = append(out, capture{head: line, msg: header(t, line)})
			continue
		}
		m := out[len(out)-1].msg
		fields := strings.Fields(line)
		name := strings.ReplaceAll(fields[1], "|", ".") + "."
		if fields[0] == "Q" {
			m.Question = append(m.Question, dns.Question{Name: name, Qtype: dns.TypePTR, Qclass: dns.ClassINET})
			continue
		}
		m.Answer = append(m.Answer, record(t, name, line))
	}
	for i := range out {
		if out[i].packet, err = out[i].msg.Pack(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func header(t testing.TB, line string) *dns.Msg {
	id, err1 := strconv.ParseUint(attr(line, "id"), 0, 16)
	flags, err2 := strconv.ParseUint(attr(line, "flags"), 0, 16)
	if err1 != nil || err2 != nil {
		t.Fatalf("bad capture: %s", line)
	}
	return &dns.Msg{Compress: true, MsgHdr: dns.MsgHdr{Id: uint16(id), Response: flags&0x8000 != 0, Authoritative: flags&0x0400 != 0}}
}

func record(t testing.TB, name, line string) dns.RR {
	fields := strings.Fields(line)
	h := dns.RR_Header{Name: name, Class: dns.ClassINET, Rrtype: dns.StringToType[fields[2]]}
	ttl, err := strconv.Atoi(attr(line, "ttl"))
	if err != nil {
		t.Fatalf("bad capture: %s", line)
	}
	h.Ttl = uint32(ttl)
	last := fields[len(fields)-1]
	switch h.Rrtype {
	case dns.TypePTR:
		return &dns.PTR{Hdr: h, Ptr: strings.ReplaceAll(last, "|", ".") + "."}
	case dns.TypeA:
		return &dns.A{Hdr: h, A: net.ParseIP(last)}
	case dns.TypeSRV:
		port, err := strconv.Atoi(attr(line, "port"))
		if err != nil {
			t.Fatalf("bad capture: %s", line)
		}
		return &dns.SRV{Hdr: h, Priority: 10, Weight: 1, Port: uint16(port), Target: attr(line, "target") + "."}
	case dns.TypeTXT:
		_, text, _ := strings.Cut(line, " json=")
		return &dns.TXT{Hdr: h, Txt: pack(t, text)}
	}
	t.Fatalf("bad capture: %s", line)
	return nil
}

func attr(line, key string) string {
	m := regexp.MustCompile(` ` + key + `=(\S+)`).FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	return m[1]
}

// pack makes TXT strings of what they shall say.
func pack(t testing.TB, plain string) (out []string) {
	t.Helper()
	if plain == "" {
		return []string{""}
	}
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	if _, err := w.Write([]byte(plain)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := hex.EncodeToString(b.Bytes())
	for ; len(s) > 255; s = s[255:] {
		out = append(out, s[:255])
	}
	return append(out, s)
}
