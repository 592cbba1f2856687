package selector

import (
	"fmt"
	"log/slog"
	"time"
)

// Option changes what [New] makes.
type Option func(*options)

type options struct {
	strategy    Strategy
	grace       time.Duration
	idle        time.Duration
	maxServices int
	logger      *slog.Logger
}

func defaults() options {
	return options{
		strategy:    P2C(),
		grace:       500 * time.Millisecond,
		idle:        10 * time.Minute,
		maxServices: 1024,
		logger:      slog.New(slog.DiscardHandler),
	}
}

func (o *options) validate() error {
	switch {
	case o.strategy == nil:
		return fmt.Errorf("selector: no strategy")
	case o.grace < 0:
		return fmt.Errorf("selector: grace %v: want 0 or more", o.grace)
	case o.idle <= 0:
		return fmt.Errorf("selector: idle time %v: want more than 0", o.idle)
	case o.maxServices <= 0:
		return fmt.Errorf("selector: %d services at most: want 1 or more", o.maxServices)
	case o.logger == nil:
		return fmt.Errorf("selector: the logger is nil")
	}
	return nil
}

// WithStrategy sets how a node is chosen. The default is [P2C].
func WithStrategy(s Strategy) Option { return func(o *options) { o.strategy = s } }

// WithGrace sets how long after the first question about a service an answer of "no node" is not yet believed: nodes
// that are asked over a network answer one after another. The default is 500 ms; zero believes it at once.
func WithGrace(d time.Duration) Option { return func(o *options) { o.grace = d } }

// WithIdle sets how long a service is watched without being asked for. The watch ends after at least that time and at
// most twice that, but not while the registry is away. The default is 10 minutes.
func WithIdle(d time.Duration) Option { return func(o *options) { o.idle = d } }

// WithMaxServices sets how many services are watched at a time; beyond it one that was not asked for lately makes room.
// The default is 1024.
func WithMaxServices(n int) Option { return func(o *options) { o.maxServices = n } }

// WithLogger sets where it is told that the registry went away, and came back. The default is nowhere.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }
