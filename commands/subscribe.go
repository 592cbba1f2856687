package commands

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

func newSubscribe() *command {
	return &command{
		name: "subscribe", aliases: []string{"sub"}, group: "Talk", args: "TOPIC...", short: "print the messages of topics as they come", min: 1, max: -1,
		long: "A message is acknowledged when it was printed, or when --filter leaves it out. In a pipe each is a line of JSON: " +
			"{\"topic\",\"id\",\"time\",\"headers\",\"body\"}, to which --filter and -q apply. It goes on until Ctrl-C, and says on standard error when it listens.",
		examples: []string{
			"micro subscribe topic",
			"micro subscribe orders --queue billing --filter '.body.total > 100'",
			"micro subscribe topic -n 1 --for 10s -q .body  # wait for one message",
		},
		flags: []cli.Flag{
			&cli.StringFlag{Name: "queue", Usage: "share the messages with the other members of queue `Q`"},
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "end after `N` messages"},
			&cli.DurationFlag{Name: "for", Usage: "end after `D`; with --count that is exit 5 where fewer came"},
			&cli.StringFlag{Name: "filter", Usage: "only messages for which the `JQ` expression is true: .body.name == \"x\""},
			&cli.BoolFlag{Name: "headers", Usage: "show the messages' headers on a terminal too"},
		},
		formats: []string{"raw", "pretty"},
		exits:   []exitCode{exitUnavailable, exitTimeout},
		run:     runSubscribe,
	}
}

// messageValue is the JSON form of a message.
type messageValue struct {
	Topic   string            `json:"topic"`
	ID      string            `json:"id,omitempty"`
	Time    time.Time         `json:"time"` // of its arrival
	Headers map[string]string `json:"headers,omitempty"`
	Body    any               `json:"body"`
	// Encoding is "base64" where the body is no text.
	Encoding string `json:"encoding,omitempty"`
}

// subscriber prints messages. Its handler runs concurrently.
type subscriber struct {
	in      *invocation
	filter  *query
	count   int // 0 for no end
	headers bool
	end     context.CancelCauseFunc

	mu      sync.Mutex
	out     *answerStream
	shown   int
	skipped int
	odd     bool // the filter failed for a message, which was told
	ended   bool
}

// The causes for which a subscription ends well.
var (
	errEnough  = errors.New("all messages came")
	errTimeUp  = errors.New("the time is up")
	errNoTaker = status.Refuse(status.Unavailable, "the subscriber has ended")
)

func runSubscribe(ctx context.Context, in *invocation) error {
	s := &subscriber{in: in, count: in.flags.Int("count"), headers: in.flags.Bool("headers")}
	for _, topic := range in.args {
		if err := broker.CheckTopic(topic); err != nil {
			return usage("%s", strings.TrimPrefix(trimPackage(err.Error()), "invalid: ")).because(err)
		}
	}
	if source := in.flags.String("filter"); source != "" {
		var err error
		if s.filter, err = compileQuery(source); err != nil {
			return err
		}
	}
	if in.flags.IsSet("count") && s.count == 0 {
		return usage("flag --count: 0 is not 1 or more")
	}
	s.out = in.out.stream(nil)
	listening, stop := in.whileRead(ctx)
	defer stop()
	listening, s.end = context.WithCancelCause(listening)
	defer s.end(nil)
	begun := time.Now()
	subs, err := s.subscribe(ctx)
	if err == nil {
		s.announce()
		s.wait(listening)
	}
	for _, sub := range subs {
		err = errors.Join(err, sub.Close())
	}
	if err != nil {
		return err
	}
	return s.finish(listening, time.Since(begun))
}

// subscribe opens a subscription for each topic, all of them or none.
func (s *subscriber) subscribe(ctx context.Context) ([]broker.Subscription, error) {
	in := s.in
	opening, cancel := in.deadline(ctx)
	defer cancel()
	b, err := in.openBroker(opening)
	if err != nil {
		return nil, err
	}
	var opts []broker.SubscribeOption
	if q := in.flags.String("queue"); q != "" {
		opts = append(opts, broker.Queue(q))
	}
	var subs []broker.Subscription
	topics := slices.Clone(in.args)
	slices.Sort(topics)
	for _, topic := range slices.Compact(topics) {
		sub, err := b.Subscribe(opening, topic, s.handle, opts...)
		if err != nil {
			if interrupted(ctx) {
				return subs, ctx.Err()
			}
			return subs, in.explainBroker(err, "the broker did not take the subscription")
		}
		subs = append(subs, sub)
	}
	return subs, nil
}

// announce says that messages are now found by: a script waits for it before it publishes.
func (s *subscriber) announce() {
	var topics []string
	for _, t := range s.in.args {
		if quoted := `"` + t + `"`; !slices.Contains(topics, quoted) {
			topics = append(topics, quoted)
		}
	}
	queue := ""
	if q := s.in.flags.String("queue"); q != "" {
		queue = " in queue \"" + q + "\""
	}
	hint := ""
	if s.in.StderrTTY {
		hint = "; Ctrl-C ends"
	}
	s.in.warn("subscribed to %s%s%s", strings.Join(topics, ", "), queue, hint)
}

func (s *subscriber) wait(ctx context.Context) {
	if d := s.in.flags.Duration("for"); d > 0 {
		timer := time.AfterFunc(d, func() { s.end(errTimeUp) })
		defer timer.Stop()
	}
	<-ctx.Done()
}

// handle prints a message; what it returns the publisher is told.
func (s *subscriber) handle(ctx context.Context, m *broker.Message) error {
	v := s.value(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errNoTaker
	}
	wanted, err := s.wanted(ctx, v)
	if err != nil {
		return err
	}
	if !wanted {
		s.skipped++
		return nil
	}
	if err := s.out.item(context.WithoutCancel(ctx), result{value: v, text: s.text(m, v), names: []string{m.ID}}); err != nil {
		s.ended = true
		s.end(err)
		return errNoTaker
	}
	if s.shown++; s.shown == s.count {
		s.ended = true
		s.end(errEnough)
	}
	return nil
}

func (s *subscriber) value(m *broker.Message) messageValue {
	v := messageValue{Topic: m.Topic, ID: m.ID, Time: s.in.Now().UTC(), Headers: map[string]string{}}
	for k, value := range m.Header.All() {
		v.Headers[k] = value
	}
	raw, ok := asJSON(s.in.form(m.Header.Get(transport.HeaderContentType)), m.Body)
	switch {
	case ok:
		v.Body = raw
	case json.Valid(m.Body):
		v.Body = json.RawMessage(m.Body)
	case utf8.Valid(m.Body):
		v.Body = string(m.Body)
	default:
		v.Body, v.Encoding = base64.StdEncoding.EncodeToString(m.Body), "base64"
	}
	return v
}

// wanted applies the filter. A message for which the expression fails, as when it compares what is not there, is left out.
func (s *subscriber) wanted(ctx context.Context, v messageValue) (bool, error) {
	if s.filter == nil {
		return true, nil
	}
	text, err := encodeJSON(v, "")
	if err != nil {
		return false, err
	}
	wanted := false
	err = s.filter.run(ctx, text, func(result any) error {
		wanted = wanted || result != nil && result != false
		return nil
	})
	if err != nil && ctx.Err() == nil {
		if !s.odd {
			s.odd = true
			s.in.warn("warning: --filter: %s; such messages are left out", err)
		}
		return false, nil
	}
	return wanted, ctx.Err()
}

// text writes a message for people; in a pipe it is a line of JSON.
func (s *subscriber) text(m *broker.Message, v messageValue) func(io.Writer, palette) error {
	in := s.in
	people := in.out.tty || in.output == "pretty"
	switch {
	case in.output == "raw":
		return func(w io.Writer, _ palette) error { return in.writeRaw(w, m.Body, true) }
	case !people:
		return jsonText(in, mustJSON(v), fitted)
	}
	return func(w io.Writer, c palette) error {
		var b strings.Builder
		b.WriteString(c.faint(v.Time.Local().Format(time.TimeOnly)) + "  " + c.name(terminal.Line(m.Topic)) + "  ")
		if s.headers {
			for k, value := range m.Header.All() {
				b.WriteString("\n  " + c.faint(terminal.Line(k+": "+value)))
			}
			b.WriteString("\n  ")
		}
		if raw, ok := v.Body.(json.RawMessage); ok {
			b.WriteString(c.json(mustJSON(raw)))
		} else {
			b.WriteString(terminal.Safe(strings.TrimRight(string(m.Body), "\n")))
		}
		_, err := io.WriteString(w, b.String()+"\n")
		return err
	}
}

// mustJSON encodes what is known to have a JSON form.
func mustJSON(v any) json.RawMessage {
	text, _ := encodeJSON(v, "")
	return text
}

// finish tells how many messages came, and what the end means.
func (s *subscriber) finish(ctx context.Context, took time.Duration) error {
	cause := context.Cause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(cause, errReaderGone) || brokenPipe(cause) {
		return nil
	}
	if err := s.out.close(); err != nil {
		return err
	}
	summary := plural(s.shown, "message") + " in " + took.Round(100*time.Millisecond).String()
	if s.skipped > 0 {
		summary += ", and " + count(s.skipped, " that the filter left out")
	}
	var sig signalError
	switch {
	case errors.Is(cause, errTimeUp) && s.shown < s.count:
		return fail(exitTimeout, "%d of %s came within %s", s.shown, plural(s.count, "message"), s.in.flags.Duration("for"))
	case errors.As(cause, &sig) && s.in.StderrTTY:
		s.in.warn("\n%s", summary) // below the ^C
		return nil
	case errIs(cause, errTimeUp, errEnough, context.Canceled), errors.As(cause, &sig):
		s.in.warn("%s", summary)
		return nil
	}
	return cause // standard output failed
}
