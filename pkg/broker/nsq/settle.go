package nsq

import (
	"context"
	"errors"
	"fmt"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/envelope"
)

const maxDone = 10_000 // of what is remembered as handled

// run has a message handled, in a place that was taken.
func (s *subscription) run(h *held) {
	m, err := envelope.Decode(h.m.Body)
	switch {
	case err != nil:
		m = &broker.Message{ID: string(h.m.ID[:]), Body: h.m.Body}
		err = fmt.Errorf("it is no envelope: %w", err)
	case int(h.m.Attempts) > s.b.o.Tries:
		err = s.lastReason(h)
	}
	m.Topic = s.topic // whatever it says itself
	if err != nil {
		s.running.Go(func() {
			defer s.pool.Give(1)
			s.dead(h, m, err)
		})
		return
	}
	whole := *m
	s.mu.Lock()
	s.working[m] = false
	s.mu.Unlock()
	s.pool.Run(m, func(err error) { s.settle(h, m, whole, err) })
}

// handle calls the handler.
func (s *subscription) handle(ctx context.Context, m *broker.Message) error {
	defer func() {
		s.mu.Lock()
		behind := s.working[m]
		delete(s.working, m)
		if behind {
			s.stuck--
		}
		s.mu.Unlock()
		if behind {
			s.share()
		}
	}()
	return s.handler(ctx, m)
}

// leave notes that a handler which still runs is not waited for any more: it keeps its place.
func (s *subscription) leave(m *broker.Message) {
	s.mu.Lock()
	_, runs := s.working[m]
	if runs {
		s.working[m] = true
		s.stuck++
	}
	s.mu.Unlock()
	if runs {
		s.share()
	}
}

// settle tells nsqd what became of a message. whole is m as it came, but for what the handler may have changed in place.
func (s *subscription) settle(h *held, m *broker.Message, whole broker.Message, err error) {
	tries := int(h.m.Attempts)
	switch {
	case err == nil:
		s.say(h, gonsq.Finish(h.m.ID))
	case errors.Is(err, broker.ErrClosed) && s.life.Err() != nil:
		s.mu.Lock()
		delete(s.working, m) // no handler may have begun
		s.mu.Unlock()
		s.say(h, gonsq.Requeue(h.m.ID, 0)) // another may have it
	case tries >= s.b.o.Tries:
		s.leave(m)
		if again, decodeErr := envelope.Decode(h.m.Body); decodeErr == nil {
			whole.Header, whole.Body = again.Header, again.Body
		}
		s.dead(h, &whole, err)
	default:
		s.leave(m)
		wait := s.b.o.RetryWait
		for range tries - 1 {
			wait = min(2*wait, max(maxRetry, s.b.o.RetryWait))
		}
		s.b.o.Logger.Info("a handler failed, and its message comes again", "topic", s.topic, "queue", s.queue, "id", whole.ID, "delivery", tries, "after", wait, "error", err)
		s.say(h, gonsq.Requeue(h.m.ID, wait))
	}
}

// dead makes a dead letter of a message. Where that cannot be published the message comes again.
func (s *subscription) dead(h *held, m *broker.Message, cause error) {
	tries := min(int(h.m.Attempts), s.b.o.Tries)
	log := []any{"topic", s.topic, "queue", s.queue, "id", m.ID, "deliveries", tries, "error", cause}
	if broker.IsDeadTopic(s.topic) {
		s.b.o.Logger.Error("a dead letter was not handled, and is dropped", log...)
		s.say(h, gonsq.Finish(h.m.ID))
		return
	}
	letter := broker.DeadLetter(m, s.queue, tries, cause)
	ctx, cancel := context.WithTimeout(context.Background(), s.b.o.Timeout)
	defer cancel()
	cmd := gonsq.Publish(nameOf(letter.Topic), envelope.Encode(letter, letter.ID))
	if err := s.b.publish(ctx, []*gonsq.Command{cmd}); err != nil {
		s.b.o.Logger.Error("a dead letter cannot be published, and its message comes again", append(log, "why", err)...)
		s.mu.Lock()
		s.reasons[h.key()] = cause
		s.mu.Unlock()
		s.say(h, gonsq.Requeue(h.m.ID, max(maxRetry, s.b.o.RetryWait)))
		return
	}
	s.b.o.Logger.Warn("a message was not handled, and is a dead letter", append(log, "dead", letter.Topic)...)
	s.say(h, gonsq.Finish(h.m.ID))
}

// lastReason is why a message that has had its tries was not acknowledged.
func (s *subscription) lastReason(h *held) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reasons[h.key()]; err != nil {
		return err
	}
	return errors.New("the subscriber that had it went away, or did not answer")
}

// say settles a message with its nsqd. What was handled when there is no connection any more is remembered, since it comes again.
func (s *subscription) say(h *held, cmd *gonsq.Command) {
	s.mu.Lock()
	delete(s.held, h)
	finished := string(cmd.Name) == "FIN"
	if finished {
		delete(s.reasons, h.key())
	}
	s.mu.Unlock()
	if err := h.c.send(cmd); err == nil || !finished || s.queue == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.done) >= maxDone {
		clear(s.done) // it comes twice
	}
	s.done[h.key()] = struct{}{}
}
