package consul

import (
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// FuzzNode: what is read is a valid node, and comes back from what is written of it.
func FuzzNode(f *testing.F) {
	f.Add("a", "greeter", "127.0.0.1", 80, `t={"zone":"a"} e={"name":"Say.Hello","request":{"name":"R","type":"R","values":[{"name":"n","type":"string","values":null}]},"response":null,"metadata":{}} v=1`)
	f.Add("a/b", "micro.http.broker", "", 0, "t-789caa564a2acacf4e2d52b252ca28292950aa05040000ffff364d0600 v-789cca492c492d2e01040000ffff08cc028e")
	f.Add("a", "greeter", "::1", 1, "v-789c v=1 v-00 e- t-")
	f.Fuzz(func(t *testing.T, id, service, address string, port int, tags string) {
		e := entry{Service: instance{ID: id, Service: service, Address: address, Port: port, Tags: strings.Split(tags, " ")}}
		e.Node.Address = "10.0.0.1"
		var d decoder
		d.turn()
		n, ok, err := d.node(&e)
		if !ok || err != nil {
			return
		}
		if err := registry.Validate(n); err != nil {
			t.Fatal(err)
		}
		reg, err := encode(n, "owner", time.Second)
		if err != nil {
			return // written it is larger than what was read, or the id is none that Consul takes
		}
		d.turn()
		if again, ok, err := d.node(&entry{Service: reg.instance}); !ok || err != nil || !again.Equal(n) {
			t.Errorf("read\n%+v\nand from what is written of it\n%+v, %v, %v", n, again, ok, err)
		}
	})
}

// TestDecoderRemembers: tags that nodes have in common are read once, also in the next reading, and not for ever.
func TestDecoderRemembers(t *testing.T) {
	t.Parallel()
	n := registry.Node{ID: "a", Service: "greeter", Version: "1", Address: "127.0.0.1:1", Endpoints: []registry.Endpoint{{Name: "Say.Hello"}}}
	reg, err := encode(n, "owner", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var d decoder
	read := func() int {
		if got, ok, err := d.node(&entry{Service: reg.instance}); !ok || err != nil || !got.Equal(n) {
			t.Fatalf("read %+v, %v, %v", got, ok, err)
		}
		return len(d.now) + len(d.before)
	}
	d.turn()
	if read(); read() != 2 {
		t.Errorf("%d tags are remembered, want 2", read())
	}
	d.turn()
	if read() != 4 || d.now[reg.Tags[0]].endpoint.Name != "Say.Hello" {
		t.Errorf("what the last reading had is not taken over: %v", d.now)
	}
	d.turn()
	d.turn()
	if len(d.now)+len(d.before) != 0 {
		t.Errorf("%d tags that nobody has are remembered", len(d.now)+len(d.before))
	}
}

// TestBombs: what tags come to is bounded for a node, and for a reading.
func TestBombs(t *testing.T) {
	t.Parallel()
	var d decoder
	d.turn()
	read := func(tags ...string) error {
		_, _, err := d.node(&entry{Service: instance{ID: "a", Service: "greeter", Address: "h", Port: 1, Tags: append(tags, "v=1")}})
		return err
	}
	bomb := pack(tagMeta, []byte(`{"k":"`+strings.Repeat("x", 8<<20)+`"}`))
	before := d.unpacked
	if err := read(bomb); err == nil || d.unpacked-before > registry.MaxRecord+1 {
		t.Errorf("of a bomb %d bytes were unpacked, %v", d.unpacked-before, err)
	}
	for i := 0; d.unpacked <= maxUnpacked; i++ {
		_ = read(pack(tagMeta, append(make([]byte, registry.MaxRecord-100), byte(i), byte(i>>8)))) // no JSON, but it costs as much
		if i > 2*maxUnpacked/registry.MaxRecord {
			t.Fatalf("there is no end to it: %d", d.unpacked)
		}
	}
	if err := read(); err == nil || !strings.Contains(err.Error(), "the tags of all nodes") {
		t.Errorf("after too much was unpacked a node gave %v", err)
	}
	d.turn()
	if err := read(); err != nil {
		t.Errorf("the next reading gave %v", err)
	}
}

func BenchmarkReadAgain(b *testing.B) {
	n := registry.Node{ID: "a", Service: "greeter", Version: "1", Address: "127.0.0.1:1", Metadata: map[string]string{"zone": "a"}}
	for range 20 {
		n.Endpoints = append(n.Endpoints, registry.Endpoint{Name: "Say.Hello" + strings.Repeat("o", len(n.Endpoints)), Request: &registry.Value{Name: "R", Type: "R"}})
	}
	reg, err := encode(n, "owner", time.Second)
	if err != nil {
		b.Fatal(err)
	}
	e := entry{Service: reg.instance}
	for name, again := range map[string]bool{"first": false, "again": true} {
		b.Run(name, func(b *testing.B) {
			var d decoder
			d.turn()
			b.ReportAllocs()
			for b.Loop() {
				if !again {
					d = decoder{}
					d.turn()
				}
				if _, _, err := d.node(&e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
