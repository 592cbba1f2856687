package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/status"
)

// JetStream is spoken here as its servers do, by requests of JSON: so a stream's configuration keeps what this package does not know, and a
// pull asks for as many messages as there are free places.
const (
	api      = "$JS.API."
	ackToken = "$JS.ACK."
)

// Headers of messages to and from JetStream.
const (
	idHeader      = natsgo.MsgIdHdr
	streamHeader  = natsgo.ExpectedStreamHdr
	pendingHeader = "Nats-Pending-Messages"
	statusHeader  = "Status"
	reasonHeader  = "Description"
)

// What JetStream's errors are, by their number.
const (
	codeConsumerNotFound = 10014
	codeNoSpace          = 10023
	codeStorage          = 10047
	codeTooLarge         = 10054
	codeStreamInUse      = 10058
	codeStreamNotFound   = 10059
	codeOtherStream      = 10060
	codeOverlap          = 10065
	codeStoreFailed      = 10077
	codeConsumerExists   = 10148
)

// apiError is JetStream's refusal.
type apiError struct {
	Code        int    `json:"code"` // as HTTP's
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return e.Description }

// is reports whether err is JetStream's error with that number.
func is(err error, number int) bool {
	var e *apiError
	return errors.As(err, &e) && e.ErrCode == number
}

// errNoAnswer is why nobody took a request: JetStream is not enabled, or not ready, or has no such stream or consumer.
var errNoAnswer = errors.New("no answer of JetStream: it is not enabled there, or not ready")

// request asks JetStream. rsp gets its answer, which has no error. It ends with ctx, after Timeout, and with the connection.
func (s *stream) request(ctx context.Context, subject string, req, rsp any) error {
	nc, err := s.b.conn.Get(ctx)
	if err != nil {
		return err
	}
	var data []byte
	if req != nil {
		if data, err = json.Marshal(req); err != nil {
			return err
		}
	}
	denied, allowed := s.b.conn.Denied(api + subject)
	defer allowed()
	live, stop := s.b.conn.While(ctx)
	defer stop()
	live, cancel := context.WithTimeout(live, s.b.conn.Timeout())
	defer cancel()
	forbidden := make(chan error, 1)
	go func() {
		select {
		case err := <-denied:
			forbidden <- err
			cancel()
		case <-live.Done():
		}
	}()
	m, err := nc.RequestWithContext(live, api+subject, data)
	select {
	case err := <-forbidden:
		return s.b.conn.Error(err)
	default:
	}
	switch {
	case errors.Is(err, natsgo.ErrNoResponders):
		return s.b.conn.Error(errNoAnswer)
	case err != nil && live.Err() != nil:
		return s.why(ctx, live)
	case err != nil:
		return s.b.conn.Error(err)
	}
	var refused struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &refused); err != nil {
		return fmt.Errorf("broker: nats %s: %s: the answer is no JSON: %w", s.b.conn.Hosts(), subject, err)
	}
	if refused.Error != nil {
		return refused.Error
	}
	if rsp == nil {
		return nil
	}
	return json.Unmarshal(m.Data, rsp)
}

// why tells why live has ended, which came from ctx.
func (s *stream) why(ctx, live context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.b.conn.Error(context.Cause(live))
}

// said gives an error of JetStream in this package's terms.
func (s *stream) said(err error) error {
	var e *apiError
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.ErrCode == codeOtherStream || e.ErrCode == codeOverlap || e.ErrCode == codeTooLarge:
		return fmt.Errorf("%w: nats %s: stream %s: %w", broker.ErrInvalid, s.b.conn.Hosts(), s.name, e)
	case e.ErrCode == codeStoreFailed || e.ErrCode == codeStorage || e.ErrCode == codeNoSpace:
		return fmt.Errorf("broker: nats %s: stream %s: %w", s.b.conn.Hosts(), s.name, status.Wrap(e, status.ResourceExhausted, "%s", e.Description))
	case e.Code == 503 || e.Code == 429:
		return fmt.Errorf("%w: nats %s: stream %s: %w", broker.ErrUnavailable, s.b.conn.Hosts(), s.name, e)
	}
	return fmt.Errorf("broker: nats %s: stream %s: %w", s.b.conn.Hosts(), s.name, status.Wrap(e, status.FailedPrecondition, "%s", e.Description))
}

// passing reports whether an error of JetStream is one that is over soon.
func passing(err error) bool {
	var e *apiError
	return errors.As(err, &e) && (e.Code == 503 || e.Code == 429) && e.ErrCode != codeStoreFailed && e.ErrCode != codeNoSpace
}

// place is where a delivered message stands: its sequence in the stream, and how often it has been delivered, this time included.
type place struct {
	sequence uint64
	delivery int
	epoch    int // the consumer's when it came
}

// placeOf reads it of the subject by which a message is acknowledged:
//
//	$JS.ACK.<stream>.<consumer>.<delivery>.<stream sequence>.<consumer sequence>.<time>.<pending>
//
// with two more words behind ACK, for the domain and the account, since version 2 of it, and perhaps one at the end.
func placeOf(reply string) (place, bool) {
	words := strings.Split(reply, ".")
	first := 4
	if len(words) >= 11 {
		first = 6
	} else if len(words) != 9 {
		return place{}, false
	}
	delivery, err1 := strconv.Atoi(words[first])
	sequence, err2 := strconv.ParseUint(words[first+1], 10, 64)
	return place{sequence: sequence, delivery: delivery}, strings.HasPrefix(reply, ackToken) && err1 == nil && err2 == nil && delivery > 0
}

// The ways to settle a delivery.
var (
	sayAck      = []byte("+ACK")
	sayNak      = []byte("-NAK") // again, at once
	sayTerm     = []byte("+TERM")
	sayProgress = []byte("+WPI")
)

// sayLater is for a message that is to come again after d.
func sayLater(d time.Duration) []byte { return fmt.Appendf(nil, `-NAK {"delay": %d}`, d.Nanoseconds()) }

// dedup gives the id by which a stream knows a message again: ids are the topics' own.
func dedup(topic, id string) string { return topic + " " + id }
