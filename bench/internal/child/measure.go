package child

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/result"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

// dialTime is how long a client may take to connect, beside its warm-up: those with ten thousand connections need it.
const dialTime = 60 * time.Second

// settle is how long after the start of idle connections they are left alone.
const settle = 2 * time.Second

// Measure has a client of peer call a server of it, and measures for the given time after the warm-up. The error is
// worker.ErrUnfit where the peer has no such cell.
func (p Programs) Measure(ctx context.Context, program, peer string, c cell.Cell, warm, window time.Duration) (l *result.Load, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server, err := p.Start(ctx, program, peer, "server", c, warm)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	var at worker.Place
	if err := server.Read(&at, 0); err != nil {
		return nil, err
	}
	if at.Unfit {
		return nil, worker.ErrUnfit
	}
	l = new(result.Load)
	if l.Idle, err = server.RSS(); err != nil {
		return nil, err
	}
	client, err := p.Start(ctx, program, peer, "client", c, warm)
	if err != nil {
		return nil, err
	}
	defer client.Stop()
	if err := client.Tell(at); err != nil {
		return nil, err
	}
	if err := client.ready(warm + dialTime); err != nil {
		return nil, err
	}
	if c.Kind == cell.Idle {
		window = settle
	}
	if err := measured(ctx, server, client, window, l); err != nil {
		return nil, err
	}
	if c.Kind != cell.Idle && l.Ops() == 0 {
		return nil, fmt.Errorf("%s of %s: nothing was done within %v", peer, c, window)
	}
	return l, nil
}

// measured measures both ends, which begin and end within some microseconds of each other.
func measured(ctx context.Context, server, client *Child, length time.Duration, l *result.Load) error {
	both := []*Child{server, client}
	for _, c := range both {
		if err := c.say("begin"); err != nil {
			return err
		}
	}
	for _, c := range both {
		if err := c.ready(0); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(length):
	}
	for _, c := range both {
		if err := c.say("end"); err != nil {
			return err
		}
	}
	var errs [2]error
	l.Server, errs[0] = server.sample()
	l.Client, errs[1] = client.sample()
	return errors.Join(errs[:]...)
}

// MeasureStart starts a server, waits until it listens, and looks at it after a second of rest.
func (p Programs) MeasureStart(ctx context.Context, program, peer string) (*result.Start, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	size, err := p.Size(program)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	server, err := p.Start(ctx, program, peer, "server", cell.Cell{Kind: cell.Call, Payload: 1 << 10, Callers: 1, Conns: 1}, 0)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	var at worker.Place
	if err := server.Read(&at, 0); err != nil {
		return nil, err
	}
	s := &result.Start{Listening: float64(time.Since(begin).Microseconds()) / 1e3, Size: size}
	time.Sleep(time.Second)
	s.RSS, err = server.RSS()
	return s, err
}
