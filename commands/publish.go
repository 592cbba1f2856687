package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/suggest"
	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

func newPublish() *command {
	return &command{
		name: "publish", aliases: []string{"pub"}, group: "Talk", args: "TOPIC [BODY | ITEMS...]", short: "send a message to the subscribers of a topic", min: 1, max: -1,
		long: "The message is BODY (JSON), or ITEMS, or -d; or standard input, where neither is given and it is a pipe or a file; or else {}. " +
			"With --lines each line of standard input, or of the file of -d, is a message. The answer tells how many subscribers took it. " +
			"Nobody listening is no error, unless --require-subscriber makes it one.",
		examples: []string{
			"micro publish topic",
			"micro publish user.created name=Ada",
			"tail -f events.jsonl | micro publish events --lines",
			"micro publish topic -n 100 --rate 10/s",
		},
		flags: []cli.Flag{
			&cli.StringFlag{Name: "data", Aliases: []string{"d"}, Usage: "the message, as `BODY`, or @FILE, or @- for standard input"},
			&cli.StringSliceFlag{Name: "header", Aliases: []string{"H"}, Usage: "metadata, as `K:V`; ${NAME} in V is a variable of the environment; may stand several times"},
			&cli.BoolFlag{Name: "lines", Aliases: []string{"l"}, Usage: "each line is a message"},
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "send each message `N` times", Value: 1},
			&cli.StringFlag{Name: "rate", Usage: "send at most `R` messages: 10/s (or 10), 100/m"},
			&cli.BoolFlag{Name: "require-subscriber", Usage: "fail where nobody takes a message"},
		},
		exits: []exitCode{exitUnavailable, exitTimeout, exitRemote, exitDenied, exitPartly},
		run:   runPublish,
	}
}

// publication is what publish has done so far.
type publication struct {
	in     *invocation
	broker broker.Broker
	topic  string
	header headers
	pause  time.Duration // between two messages; 0 for none
	next   time.Time     // when the next one may go
	batch  batch         // what is to be sent

	messages, bytes     int
	last                []byte          // the last body, as it was given
	takers              map[string]bool // subscribers and queues that took one message at least
	deliveries          int
	unknown             bool // a broker that cannot know who took it
	failures, unheard   int
	code                exitCode // of the failures
	reported, forgotten int      // failures that were told, and those that were only counted
}

// publishedValue is the JSON form of a publication.
type publishedValue struct {
	Topic       string `json:"topic"`
	Messages    int    `json:"messages"`
	Bytes       int    `json:"bytes"`
	Subscribers *int   `json:"subscribers"` // null where the broker cannot know
	Deliveries  int    `json:"deliveries"`
	Failed      int    `json:"failed"`
}

func runPublish(ctx context.Context, in *invocation) error {
	p := &publication{in: in, topic: in.args[0], takers: map[string]bool{}, batch: batch{most: 1}}
	if err := broker.CheckTopic(p.topic); err != nil {
		return usage("%s", strings.TrimPrefix(trimPackage(err.Error()), "invalid: ")).because(err)
	}
	var err error
	if p.header, err = in.readHeaders(); err != nil {
		return err
	}
	if p.pause, err = readRate(in.flags.String("rate")); err != nil {
		return err
	}
	count := in.flags.Int("count")
	if count < 1 {
		return usage("flag --count: %d is not 1 or more", count)
	}
	if in.flags.Bool("lines") {
		err = p.publishLines(ctx, count)
	} else {
		err = p.publishOne(ctx, count)
	}
	if err != nil {
		var f *failure
		switch {
		case p.messages == 0:
		case errors.As(err, &f) && f.code == exitUsage: // of a line
			f.line("published before it: %s", plural(p.messages, "message"))
		default:
			_ = p.print(context.WithoutCancel(ctx)) // what was done before; the error is what is told
		}
		return err
	}
	return p.finish(ctx)
}

// readRate reads "10", "10/s", "100/m" or "5/h" and gives the pause between two messages.
func readRate(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	number, unit, _ := strings.Cut(s, "/")
	per, known := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !known || !(n > 0) || n > 1e9 {
		return 0, usage("flag --rate: %q is not a rate, such as 10, 10/s or 100/m", s)
	}
	return time.Duration(float64(per) / n), nil
}

func (p *publication) publishOne(ctx context.Context, count int) error {
	i, err := p.in.readInput("message", p.in.args[1:], p.header)
	if err != nil {
		return err
	}
	given, err := p.in.body(ctx, i, nil)
	if err != nil {
		return err
	}
	body, err := i.wire(given)
	if err != nil {
		return err
	}
	if err := p.publish(ctx, given, body, count); err != nil {
		return err
	}
	return p.flush(ctx)
}

// publishLines sends the lines as they come. Empty lines are none.
func (p *publication) publishLines(ctx context.Context, count int) error {
	data := p.in.flags.String("data")
	name, file := strings.CutPrefix(data, "@")
	switch {
	case len(p.in.args) > 1 && p.in.args[1] != "-":
		return usage("flag --lines reads the messages from standard input: %q is one too many", clipText(p.in.args[1]))
	case data != "" && !file:
		return usage("flag --lines reads the messages from standard input, or from a file: -d @FILE")
	case file && name != "-":
		text, err := readFile("flag -d", name)
		if err != nil {
			return err
		}
		return p.sendLines(ctx, bytes.NewReader(text), count)
	}
	r := p.in.patientStdin("message")
	defer r.timer.Stop()
	return p.sendLines(ctx, r, count)
}

func (p *publication) sendLines(ctx context.Context, r io.Reader, count int) error {
	lines := make(chan []byte)
	failed := make(chan error, 1)
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // left behind where ctx ends first: nothing can take a read of a terminal back
		defer close(lines)
		failed <- readLines(r, func(line []byte) bool {
			select {
			case lines <- line:
				return true
			case <-reading.Done():
				return false
			}
		})
	}()
	for n := 1; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.batch.held:
			if err := p.flush(ctx); err != nil {
				return err
			}
		case line, ok := <-lines:
			if !ok {
				if err := p.flush(ctx); err != nil {
					return err
				}
				return p.lineError(<-failed, n)
			}
			if err := p.publishLine(ctx, n, line, count); err != nil {
				return err
			}
			n++
		}
	}
}

// publishLine sends line n. What comes before one that is not valid is sent.
func (p *publication) publishLine(ctx context.Context, n int, line []byte, count int) error {
	if line = bytes.TrimRight(line, "\r\n"); len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	i := input{what: "line " + strconv.Itoa(n), data: line, contentType: or(p.header.contentType, contentJSON), form: p.in.form(p.header.contentType), command: "micro publish " + p.topic}
	if body, err := i.wired(); err == nil {
		return p.publish(ctx, line, body, count)
	}
	if err := p.flush(ctx); err != nil {
		return err
	}
	if p.messages > 0 {
		i.unsent = "it was not sent"
	}
	_, err := i.wired()
	return err
}

func (p *publication) lineError(err error, n int) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTooLarge):
		return usage("line %d is %s", n, err)
	}
	return fail(exitFailed, "reading line %d: %s", n, lastCause(err)).because(err)
}

// readLines calls yield with each line, in memory of its own, until it says no.
func readLines(r io.Reader, yield func([]byte) bool) error {
	var line []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			i := bytes.IndexByte(rest, '\n') + 1
			end := i
			if i == 0 {
				end = len(rest)
			}
			if line = append(line, rest[:end]...); len(line) > maxBody+2 {
				return errTooLarge
			}
			if rest = rest[end:]; i > 0 {
				if !yield(line) {
					return nil
				}
				line = nil
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if len(line) > 0 {
				yield(line)
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// publish sends body count times, no faster than the rate. The last of it may wait for a flush. What was given is how it is told.
func (p *publication) publish(ctx context.Context, given, body []byte, count int) error {
	p.last = given
	for range count {
		if err := p.await(ctx); err != nil {
			return err
		}
		if err := p.add(ctx, body); err != nil {
			return err
		}
	}
	return nil
}

// await waits for the next message's turn. Messages that were late are not made up for by a burst.
func (p *publication) await(ctx context.Context) error {
	if wait := time.Until(p.next); p.pause > 0 && wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
	if now := time.Now(); p.next.Add(p.pause).After(now) {
		p.next = p.next.Add(p.pause)
	} else {
		p.next = now.Add(p.pause)
	}
	return ctx.Err()
}

// explainBroker tells why a broker did not do its part; late is what it did not do in time.
func (in *invocation) explainBroker(err error, late string) error {
	switch {
	case errors.Is(err, registry.ErrUnavailable):
		return in.explainRegistry(err)
	case errors.Is(err, broker.ErrUnavailable):
		name := redacted(or(in.settings.broker, "http"))
		reason, _ := whyUnavailable(hostOf(name), dialReason(err))
		return fail(exitUnavailable, "broker %s is not answering: %s", name, reason).because(err)
	case errors.Is(err, context.DeadlineExceeded):
		return fail(exitTimeout, "%s within %s", late, in.timeout).because(err).hint("more time", "--timeout 30s")
	case errors.Is(err, broker.ErrInvalid):
		return usage("%s", strings.TrimPrefix(trimPackage(err.Error()), "invalid: ")).because(err)
	}
	return err
}

// deliveryCode is the exit code of a delivery that failed: the subscriber could not take the message, or answered with an
// error.
func deliveryCode(err error) exitCode {
	switch {
	case errIs(err, broker.ErrBusy, broker.ErrUnavailable, broker.ErrClosed):
		return exitUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	var st *status.Error
	if errors.As(err, &st) { // as call tells it
		if code := codeOfStatus(st); code == exitUnavailable || code == exitTimeout || code == exitDenied {
			return code
		}
	}
	return exitRemote
}

func deliveryReason(err error) string {
	switch {
	case errors.Is(err, broker.ErrBusy):
		return "it is busy"
	case errors.Is(err, context.DeadlineExceeded):
		return "it did not answer in time"
	}
	return dialReason(err)
}

// finish prints what became of the messages and gives the exit code.
func (p *publication) finish(ctx context.Context) error {
	if p.forgotten > 0 {
		p.in.warn("warning: and %d failures more", p.forgotten)
	}
	switch {
	case p.unheard > 0 && p.in.flags.Bool("require-subscriber"):
		return p.nobody(ctx)
	case p.unheard > 0 && p.unheard == p.messages:
		p.in.warn("nobody listens to %q%s", p.topic, p.meant(ctx))
	case p.unheard > 0:
		p.in.warn("nobody listened to %s of %d to %q", plural(p.unheard, "message"), p.messages, p.topic)
	}
	if err := p.print(ctx); err != nil {
		return err
	}
	switch {
	case p.failures == 0:
		return nil
	case p.deliveries == 0:
		return exit(p.code)
	}
	return exit(exitPartly)
}

// nobody is the failure of --require-subscriber.
func (p *publication) nobody(ctx context.Context) error {
	f := fail(exitUnavailable, "nobody listens to %q", p.topic)
	if p.unheard < p.messages {
		f = fail(exitUnavailable, "nobody listened to %s of %d to %q", plural(p.unheard, "message"), p.messages, p.topic)
	}
	if near := p.closestTopic(ctx); near != "" {
		f = f.hint("did you mean", near)
	}
	return f.hint("all", "micro list topics")
}

func (p *publication) meant(ctx context.Context) string {
	if near := p.closestTopic(ctx); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// closestTopic is the topic that somebody listens to and that was perhaps meant.
func (p *publication) closestTopic(ctx context.Context) string {
	var topics []string
	for _, n := range p.in.known(ctx, 0).of(registry.BrokerService) {
		topics = append(topics, n.Metadata[registry.MetaTopic])
	}
	near := suggest.Closest(p.topic, topics)
	if near == p.topic { // somebody came meanwhile
		return ""
	}
	return near
}

func (p *publication) print(ctx context.Context) error {
	v := publishedValue{Topic: p.topic, Messages: p.messages, Bytes: p.bytes, Deliveries: p.deliveries, Failed: p.failures}
	if n := len(p.takers); !p.unknown {
		v.Subscribers = &n
	}
	return p.in.print(ctx, result{value: v, names: []string{p.topic}, text: func(w io.Writer, c palette) error {
		line := fmt.Sprintf("published to %q: %s, %d B", p.topic, plural(p.messages, "message"), p.bytes)
		if p.messages == 1 {
			line += " (" + clipText(terminal.Line(string(p.last))) + ")"
		}
		switch {
		case v.Subscribers == nil:
			line += "  -> " + c.good("the broker")
		case *v.Subscribers == 0:
			line += "  -> " + c.warn("0 subscribers")
		default:
			line += "  -> " + c.good(plural(*v.Subscribers, "subscriber"))
		}
		if p.failures > 0 {
			line += ", " + c.bad(count(p.failures, " failed"))
		}
		_, err := io.WriteString(w, line+"\n")
		return err
	}})
}
