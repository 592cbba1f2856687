package mdns

import "time"

// The times of a question. Quiet is counted in reads of the socket that found it empty for a tick, not by the clock: a
// process that got no processor for a while has not waited for anybody.
const (
	tick       = time.Millisecond
	minQuiet   = 15 * time.Millisecond
	minList    = 30 * time.Millisecond
	maxWait    = 250 * time.Millisecond // after which a question ends, also where nobody answered
	maxBusy    = 500 * time.Millisecond // after which it ends though answers still come
	emptyList  = 120 * time.Millisecond // after which a list on this machine ends where nobody answered
	settleTick = 2                      // empty reads after the first answer, for those that came with it
)

// resends is when a question is sent again if nothing has come. While answers come it never is: that would only load
// who answers.
func resends() [3]time.Duration {
	return [...]time.Duration{12 * time.Millisecond, 35 * time.Millisecond, 100 * time.Millisecond}
}

// pace decides when a question is sent again, and when it has its answer.
type pace struct {
	start       time.Time
	empty       time.Duration // how long to wait where nothing comes
	first, last time.Time     // when something new came
	quiet       int           // empty reads since
	resent      int
}

// verdict is what to do after an empty read.
type verdict int

const (
	wait    verdict = iota
	resend          // ask again
	settled         // the first answer is there, and those that came with it; more may follow
	over            // no more is expected
)

// news notes that something new came.
func (p *pace) news(now time.Time) {
	if p.first.IsZero() {
		p.first = now
	}
	p.last, p.quiet = now, 0
}

// ticked is called after an empty read.
func (p *pace) ticked(now time.Time) verdict {
	age := now.Sub(p.start)
	if p.first.IsZero() {
		switch at := resends(); {
		case p.resent < len(at) && age >= at[p.resent]:
			p.resent++
			return resend
		case age >= p.empty:
			return over
		}
		return wait
	}
	p.quiet++
	took := p.last.Sub(p.start) // the slower those answer who have, the longer for those who have not
	switch {
	case age >= maxWait, age >= minList && p.quiet >= int(max(minQuiet, took)/tick):
		return over
	case p.quiet == settleTick:
		return settled
	}
	return wait
}

// late reports whether a question has gone on for too long though answers still come.
func (p *pace) late(now time.Time) bool { return now.Sub(p.start) >= maxBusy }
