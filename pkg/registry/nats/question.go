package nats

import "time"

// The times of a question. Quiet is counted in looks that found nothing to read, not by the clock: a process that got no processor
// for a while has not waited for anybody.
const (
	tickTime = 2 * time.Millisecond
	minQuiet = 16 * time.Millisecond
	minAge   = 30 * time.Millisecond
	maxWait  = 250 * time.Millisecond // after which a question ends, also where nobody answered
	maxBusy  = time.Second            // after which it ends though answers still come
)

// question is one question that owners answer, each with its nodes. There is no last answer, but where nobody is there NATS
// says so.
type question struct {
	id      uint64
	f       *follow // whose set it makes known; nil: it is asked to hear of some nodes again
	start   time.Time
	first   time.Time // of the answers
	last    time.Time
	quiet   int // looks since that found nothing
	nobody  bool
	service string
}

// asking is a question that is to be published.
type asking struct {
	id      uint64
	service string
}

// The rest is called with the view's lock held.

// ask asks for a follow's nodes, in place of a question that is under way.
func (v *view) ask(f *follow, now time.Time) {
	if f.question != nil {
		delete(v.questions, f.question.id)
	}
	f.question = v.question(f, f.service, now)
}

func (v *view) question(f *follow, service string, now time.Time) *question {
	v.last++
	q := &question{id: v.last, f: f, service: service, start: now}
	v.questions[q.id] = q
	v.unasked = append(v.unasked, &asking{q.id, service})
	v.plan(now)
	return q
}

// answered notes that an answer to a question came, or that nobody is there to answer.
func (v *view) answered(id uint64, nobody bool, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	q := v.questions[id]
	if q == nil {
		return // what comes late is heard all the same
	}
	if q.first.IsZero() {
		q.first = now
	}
	q.last, q.quiet = now, 0
	if nobody {
		q.nobody = true
		v.plan(now)
	}
}

// tickQuestions ends the questions that have their answers.
func (v *view) tickQuestions(now time.Time, idle bool) (next time.Time) {
	for id, q := range v.questions {
		if idle {
			q.quiet++
		}
		if !q.over(now, idle) {
			next = now.Add(tickTime)
			continue
		}
		delete(v.questions, id)
		if q.f != nil && q.f.question == q {
			v.sync(q.f)
		}
	}
	return next
}

// over reports whether no more answers are expected. The slower those answer who have, the longer it waits for those who have not.
func (q *question) over(now time.Time, idle bool) bool {
	age := now.Sub(q.start)
	switch {
	case q.nobody || age >= maxBusy:
		return true
	case !idle:
		return false
	case q.first.IsZero():
		return age >= maxWait
	}
	return age >= maxWait || age >= minAge && q.quiet >= int(max(minQuiet, q.last.Sub(q.start))/tickTime)
}
