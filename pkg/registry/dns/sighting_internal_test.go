package dns

import (
	"testing"
	"testing/synctest"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
)

// TestSightings: what holds of a record that this machine, whose clock is off, sees.
func TestSightings(t *testing.T) {
	t.Parallel()
	const ttl, skew = 30 * time.Second, 10 * time.Second
	for _, tt := range []struct {
		name  string
		ahead time.Duration   // this machine's clock before the owner's
		renew []time.Duration // when the owner renews, after the first look
		looks map[time.Duration]bool
	}{
		{"clocks agree, nobody renews", 0, nil, map[time.Duration]bool{0: true, 29 * time.Second: true, 31 * time.Second: false, time.Hour: false}},
		{"this clock is a little ahead", 5 * time.Second, nil, map[time.Duration]bool{0: true, 29 * time.Second: true, 31 * time.Second: false}},
		{"this clock is behind", -time.Hour, nil, map[time.Duration]bool{0: true, 29 * time.Second: true, 31 * time.Second: false}},
		{"this clock is far ahead", time.Hour, []time.Duration{10 * time.Second}, map[time.Duration]bool{0: false, 9 * time.Second: false, 11 * time.Second: true, 39 * time.Second: true, 42 * time.Second: false}},
		{"it is long over", time.Hour, nil, map[time.Duration]bool{0: false, 10 * time.Second: false}},
		{"it is renewed", 0, []time.Duration{10 * time.Second, 20 * time.Second}, map[time.Duration]bool{11 * time.Second: true, 21 * time.Second: true, 49 * time.Second: true, 52 * time.Second: false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, begun := newSightings(skew), time.Now()
				for at := time.Duration(0); at <= time.Minute; at += time.Second {
					written := time.Duration(0)
					for _, r := range tt.renew {
						if r <= at {
							written = r
						}
					}
					left, watched := s.see(&txt{
						rr: &wire.TXT{Hdr: wire.RR_Header{Name: "x."}}, owner: "o", ttl: ttl, node: registry.Node{Service: "s"},
						until: begun.Add(written + ttl - tt.ahead),
					})
					if want, asked := tt.looks[at]; asked && (left > 0) != want {
						t.Errorf("after %v it has %v left, want alive: %v", at, left, want)
					}
					if watched && at < ttl {
						t.Errorf("after %v it is over as was watched", at)
					}
					time.Sleep(time.Second)
				}
			})
		})
	}
}

// TestSightingsResume: what could not be renewed has a new ttl, and what was over before stays so.
func TestSightingsResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, until := newSightings(time.Second), time.Now().Add(5*time.Second)
		see := func(name string) bool {
			left, _ := s.see(&txt{rr: &wire.TXT{Hdr: wire.RR_Header{Name: name}}, owner: "o", ttl: 5 * time.Second, until: until, node: registry.Node{Service: "s"}})
			return left > 0
		}
		see("old.")
		time.Sleep(6 * time.Second)
		until = until.Add(6 * time.Second)
		see("new.")
		until = until.Add(-6 * time.Second)
		heard := time.Now()
		time.Sleep(time.Minute)
		s.resume(heard)
		if see("old.") {
			t.Error("what was over is back")
		}
		until = until.Add(6 * time.Second)
		if !see("new.") {
			t.Error("what could not be renewed is over")
		}
		time.Sleep(5 * time.Second)
		if see("new.") {
			t.Error("what was not renewed since holds on")
		}
		s.keep(map[string]map[string]bool{"s": {"new.": true}}, false)
		if len(s.of["s"]) != 1 {
			t.Errorf("kept %d", len(s.of["s"]))
		}
		if s.keep(nil, true); len(s.of) != 0 {
			t.Error("a service that is gone is kept")
		}
	})
}
