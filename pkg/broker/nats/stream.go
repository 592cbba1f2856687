package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/pkg/broker"
)

const (
	maxFlight    = 512     // messages that are sent before the first of them is confirmed
	maxFlightLen = 4 << 20 // and their bytes
	firstPause   = 10 * time.Millisecond
	lastPause    = 250 * time.Millisecond
	resendTime   = time.Second // at least, before what has no answer is sent again
	dedupTime    = 2 * time.Minute
	updateTries  = 10 // of adding a subject, while others add theirs
)

// stream is what a broker knows of its stream.
type stream struct {
	b    *Broker
	name string
	turn chan struct{} // of one element: one makes the stream what it should be

	mu      sync.Mutex
	covered map[string]bool // subjects that the stream has
	known   bool            // the stream was there once

	acks    sync.Mutex // guards inbox's making
	inbox   *natsconn.Subscription
	prefix  string // of the subjects that confirmations come to
	waiting map[uint64]*flight
	last    uint64
}

func newStream(b *Broker) *stream {
	return &stream{b: b, name: b.o.Stream, turn: make(chan struct{}, 1), covered: map[string]bool{}, waiting: map[uint64]*flight{}}
}

// connected is called at each connection: the stream may be gone.
func (s *stream) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.covered)
}

func (s *stream) close() {
	s.acks.Lock()
	defer s.acks.Unlock()
	if s.inbox != nil {
		s.inbox.Close()
	}
}

// publish stores messages, in their order. What is not confirmed when the connection breaks, or JetStream is not ready, is sent again:
// the stream knows it by its id. That goes on for Timeout.
func (s *stream) publish(ctx context.Context, msgs []*natsgo.Msg) error {
	if err := s.listen(ctx); err != nil {
		return err
	}
	for len(msgs) > 0 {
		n, size := 0, 0
		for n < len(msgs) && n < maxFlight && size < maxFlightLen {
			size += msgs[n].Size()
			n++
		}
		if err := s.store(ctx, msgs[:n]); err != nil {
			return s.said(err)
		}
		msgs = msgs[n:]
	}
	return nil
}

// store is publish for what may be in flight at once.
func (s *stream) store(ctx context.Context, msgs []*natsgo.Msg) error {
	var failing time.Time // since when
	pause := firstPause
	for {
		err := s.cover(ctx, msgs)
		if err == nil {
			if msgs, err = s.send(ctx, msgs); err == nil {
				return nil
			}
		}
		if !errors.Is(err, broker.ErrUnavailable) && !passing(err) {
			return err
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		if time.Since(failing) > s.b.conn.Timeout() {
			return err
		}
		select {
		case <-time.After(pause + rand.N(pause)):
			pause = min(2*pause, lastPause)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// flight is messages that were sent and are not all confirmed.
type flight struct {
	first uint64 // the number of the first message
	done  chan struct{}

	mu   sync.Mutex
	msgs []*natsgo.Msg // nil for what is confirmed
	left int           // that have no answer
	err  error         // a refusal
}

// send sends messages, and waits until each is confirmed. It gives those that are not, and why.
func (s *stream) send(ctx context.Context, msgs []*natsgo.Msg) ([]*natsgo.Msg, error) {
	nc, err := s.b.conn.Get(ctx)
	if err != nil {
		return msgs, err
	}
	live, stop := s.b.conn.While(ctx)
	defer stop()
	limit := s.b.conn.Timeout()
	live, cancel := context.WithTimeout(live, min(limit, max(limit/4, resendTime))) // a server that starts may drop what comes
	defer cancel()
	denied, allowed := s.b.conn.Denied(subjects(msgs)...)
	defer allowed()
	f := s.take(msgs)
	defer s.drop(f)
	for i, m := range msgs {
		m.Reply = s.prefix + strconv.FormatUint(f.first+uint64(i), 36)
		if err := nc.PublishMsg(m); err != nil {
			return f.open(), s.b.conn.Error(err)
		}
	}
	select {
	case <-f.done:
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.unconfirmed(), f.err
	case err := <-denied:
		return f.open(), s.b.conn.Error(err)
	case <-live.Done():
		return f.open(), s.why(ctx, live)
	}
}

func subjects(msgs []*natsgo.Msg) []string {
	all := make([]string, len(msgs))
	for i, m := range msgs {
		all[i] = m.Subject
	}
	return all
}

// listen makes the subscription that confirmations come to.
func (s *stream) listen(ctx context.Context) error {
	s.acks.Lock()
	defer s.acks.Unlock()
	if s.inbox != nil {
		return nil
	}
	s.prefix = natsgo.NewInbox() + "."
	inbox, err := s.b.conn.Subscribe(ctx, s.prefix+"*", "", -1, s.confirmed)
	if err != nil {
		return err
	}
	s.inbox = inbox
	return nil
}

// take numbers messages.
func (s *stream) take(msgs []*natsgo.Msg) *flight {
	f := &flight{msgs: slices.Clone(msgs), left: len(msgs), done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.first = s.last + 1
	s.last += uint64(len(msgs))
	for i := range msgs {
		s.waiting[f.first+uint64(i)] = f
	}
	return f
}

func (s *stream) drop(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range f.msgs {
		delete(s.waiting, f.first+uint64(i))
	}
}

// confirmed takes the answer to a message.
func (s *stream) confirmed(m *natsgo.Msg) {
	n, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, s.prefix), 36, 64)
	if err != nil {
		return
	}
	s.mu.Lock()
	f := s.waiting[n]
	delete(s.waiting, n)
	s.mu.Unlock()
	if f == nil {
		return // it has been sent again
	}
	var answer struct {
		Stream string    `json:"stream"`
		Error  *apiError `json:"error"`
	}
	i := int(n - f.first)
	switch err := json.Unmarshal(m.Data, &answer); {
	case m.Header.Get(statusHeader) == "503": // the stream does not have the subject, or is not ready
		s.uncover(f.msgs[i].Subject)
		f.answer(i, s.b.conn.Error(errNoAnswer))
	case err != nil:
		f.answer(i, fmt.Errorf("broker: nats %s: a confirmation that is no JSON: %w", s.b.conn.Hosts(), err))
	case answer.Error != nil:
		f.answer(i, answer.Error)
	case answer.Stream != s.name:
		f.answer(i, fmt.Errorf("broker: nats %s: the message went to stream %q, not to %s", s.b.conn.Hosts(), answer.Stream, s.name))
	default:
		f.answer(i, nil)
	}
}

// answer notes what became of message i. An error that lasts is kept before one that passes.
func (f *flight) answer(i int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.msgs[i] = nil
	} else if f.err == nil || passing(f.err) || errors.Is(f.err, broker.ErrUnavailable) {
		f.err = err
	}
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

// open gives what is not confirmed, while answers may come.
func (f *flight) open() []*natsgo.Msg {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unconfirmed()
}

func (f *flight) unconfirmed() []*natsgo.Msg {
	var left []*natsgo.Msg
	for _, m := range f.msgs {
		if m != nil {
			left = append(left, m)
		}
	}
	return left
}

// streamInfo is what JetStream tells of a stream.
type streamInfo struct {
	Config  map[string]json.RawMessage `json:"config"`
	Created time.Time                  `json:"created"`
}

func (i streamInfo) subjects() (subjects []string, err error) {
	if raw := i.Config["subjects"]; raw != nil {
		err = json.Unmarshal(raw, &subjects)
	}
	return subjects, err
}

// cover sees to it that the stream has the messages' subjects.
func (s *stream) cover(ctx context.Context, msgs []*natsgo.Msg) error {
	var lacks []string
	s.mu.Lock()
	for _, m := range msgs {
		if !s.covered[m.Subject] && !slices.Contains(lacks, m.Subject) {
			lacks = append(lacks, m.Subject)
		}
	}
	s.mu.Unlock()
	if len(lacks) == 0 {
		return nil
	}
	_, err := s.have(ctx, lacks...)
	return err
}

func (s *stream) uncover(subject string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.covered, subject)
}

// have makes the stream, or adds subjects to it, where they lack.
func (s *stream) have(ctx context.Context, subjects ...string) (streamInfo, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return streamInfo{}, context.Cause(ctx)
	}
	defer func() { <-s.turn }()
	rested := false
	for try := 1; ; try++ {
		info, lacks, err := s.look(ctx, subjects)
		if is(err, codeStreamNotFound) && !rested && s.was() {
			if err := rest(ctx); err != nil {
				return info, err
			}
			rested = true
			continue
		}
		if err == nil && len(lacks) == 0 {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.known = true
			for _, subject := range subjects {
				s.covered[subject] = true
			}
			return info, nil
		}
		if err == nil || is(err, codeStreamNotFound) {
			err = s.add(ctx, info, lacks, subjects)
		}
		if err != nil && !is(err, codeStreamInUse) || try == updateTries {
			return info, s.trouble(err, lacks)
		}
		if try > 1 { // another has written what it had read before us
			select {
			case <-time.After(rand.N(20 * time.Millisecond)):
			case <-ctx.Done():
				return info, context.Cause(ctx)
			}
		}
	}
}

// was reports whether the stream was there once.
func (s *stream) was() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

func (s *stream) trouble(err error, lacks []string) error {
	if err == nil {
		return fmt.Errorf("%w: nats %s: stream %s does not keep the subjects %q", broker.ErrUnavailable, s.b.conn.Hosts(), s.name, lacks)
	}
	return s.said(err)
}

// look asks for the stream, and tells which of subjects it lacks.
func (s *stream) look(ctx context.Context, subjects []string) (info streamInfo, lacks []string, err error) {
	if err = s.request(ctx, "STREAM.INFO."+s.name, nil, &info); err != nil {
		return info, subjects, err
	}
	has, err := info.subjects()
	for _, subject := range subjects {
		if !slices.ContainsFunc(has, func(pattern string) bool { return matches(pattern, subject) }) {
			lacks = append(lacks, subject)
		}
	}
	return info, lacks, err
}

// add makes the stream with subjects, where info has none, or adds those that it lacks.
func (s *stream) add(ctx context.Context, info streamInfo, lacks, subjects []string) error {
	if info.Config == nil {
		return s.request(ctx, "STREAM.CREATE."+s.name, map[string]any{
			"name": s.name, "subjects": subjects, "retention": "limits", "storage": "file", "discard": "old", "num_replicas": s.b.o.Replicas,
			"max_age": s.b.o.MaxAge, "duplicate_window": min(dedupTime, s.b.o.MaxAge),
		}, nil)
	}
	has, err := info.subjects()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(append(has, lacks...))
	if err != nil {
		return err
	}
	info.Config["subjects"] = raw
	return s.request(ctx, "STREAM.UPDATE."+s.name, info.Config, nil)
}

// matches reports whether a pattern of subjects, with * for a word and > for the rest, has a subject.
func matches(pattern, subject string) bool {
	p, w := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, word := range p {
		switch {
		case word == ">":
			return len(w) > i
		case i >= len(w) || word != "*" && word != w[i]:
			return false
		}
	}
	return len(p) == len(w)
}
