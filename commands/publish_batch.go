package commands

import (
	"context"
	"fmt"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// The limits of what publish hands to the broker at once.
const (
	batchMessages = 256
	batchBytes    = 256 << 10
	// batchHeld is how long a line waits for others at most.
	batchHeld = 10 * time.Millisecond
	// batchSlow is from when on a batch was too large. Each has the time that --timeout gives, so that subscribers which take
	// their time for a message get few at once.
	batchSlow = 100 * time.Millisecond
)

// batch is messages that are to be published together.
type batch struct {
	header   metadata.MD // of each message
	messages []*broker.Message
	size     int              // bytes of their bodies
	most     int              // messages that may go together now
	held     <-chan time.Time // when the first of them has waited long enough; nil where there is none
}

// add takes a message into the batch, and sends it where that is full. body is not changed afterwards.
func (p *publication) add(ctx context.Context, body []byte) error {
	b := &p.batch
	if b.header == nil {
		var err error
		if b.header, err = p.header.metadata.Set("content-type", or(p.header.contentType, contentJSON)); err != nil {
			return usage("flag -H: %s", err).because(err)
		}
	}
	if b.size+len(body) > batchBytes {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	b.messages, b.size = append(b.messages, &broker.Message{Topic: p.topic, Header: b.header, Body: body}), b.size+len(body)
	if len(b.messages) >= b.most {
		return p.flush(ctx)
	}
	if b.held == nil {
		b.held = time.After(batchHeld)
	}
	return nil
}

// flush publishes the batch and keeps count.
func (p *publication) flush(ctx context.Context) error {
	b := &p.batch
	ms, size := b.messages, b.size
	if len(ms) == 0 {
		return nil
	}
	b.messages, b.size, b.held = nil, 0, nil
	if p.broker == nil {
		opened, err := p.in.openBroker(ctx)
		if err != nil {
			return err
		}
		p.broker = opened
	}
	sending, cancel := p.in.deadline(ctx)
	defer cancel()
	began, done := time.Now(), p.in.waiting("the subscribers of %s", p.topic)
	report, err := p.broker.Publish(sending, ms...)
	done()
	if err != nil {
		if interrupted(ctx) {
			return err
		}
		return p.in.explainBroker(err, "the message was not published")
	}
	if p.pause == 0 {
		b.adapt(len(ms), time.Since(began))
	}
	p.unknown = p.unknown || report.Deliveries == nil
	p.note(report, len(ms))
	p.messages += len(ms)
	p.bytes += size
	return nil
}

// adapt learns from n messages that took d.
func (b *batch) adapt(n int, d time.Duration) {
	switch {
	case d > batchSlow:
		b.most = max(n/2, 1)
	case n >= b.most:
		b.most = min(2*b.most, batchMessages)
	}
}

// maxReported is how many failed deliveries are told one by one.
const maxReported = 5

// note counts what became of the n messages that follow those counted so far, and names the subscribers that did not take them.
func (p *publication) note(report broker.Report, n int) {
	if report.Deliveries != nil {
		heard := make([]bool, n)
		for _, d := range report.Deliveries {
			for i := d.First; i <= d.Last; i++ {
				heard[i] = true
			}
		}
		for _, h := range heard {
			if !h {
				p.unheard++
			}
		}
	}
	for _, d := range report.Deliveries {
		n := d.Last - d.First + 1
		if d.Err == nil {
			p.deliveries += n
			p.takers[or(d.Queue, d.Subscriber)] = true
			continue
		}
		p.failures += n
		p.code = max(p.code, deliveryCode(d.Err))
		if p.reported == maxReported {
			p.forgotten += n
			continue
		}
		p.reported++
		p.report(d)
	}
}

// report tells of messages that a subscriber did not take.
func (p *publication) report(d broker.Delivery) {
	who := d.Subscriber
	if d.Queue != "" {
		who += " (queue " + d.Queue + ")"
	}
	which := fmt.Sprintf("message %d", p.messages+d.First+1)
	if d.First < d.Last {
		which = fmt.Sprintf("messages %d to %d", p.messages+d.First+1, p.messages+d.Last+1)
	}
	p.in.warn("warning: subscriber %s did not take %s: %s", who, which, deliveryReason(d.Err))
}
