package server

import (
	"context"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// remoteKey is by which Call.Remote asks a context.
type remoteKey struct{}

// incoming is what came with a call, for its context.
type incoming struct {
	md     metadata.MD
	remote string // empty where a context further up has it
}

func (in *incoming) Value(key any) any {
	if metadata.IsIncoming(key) {
		return &in.md
	}
	if _, ok := key.(remoteKey); ok && in.remote != "" {
		return in.remote
	}
	return nil
}

// values gives what a header brings into a context.
func values(header metadata.MD, remote string) callctx.Values {
	md := transport.Metadata(header)
	if len(md) == 0 && remote == "" {
		return nil
	}
	return &incoming{md, remote}
}

// deadline gives the time at which a handler has had d; zero is no bound.
func deadline(d time.Duration) int64 {
	if d <= 0 {
		return callctx.Never
	}
	return callctx.Now() + int64(d)
}

// context gives a handler's context, which ends with parent, at the deadline, or by End. The caller calls End.
func (s *Server) context(parent context.Context, deadline int64, v callctx.Values) *callctx.Context {
	slab, ok := s.contexts.Get().(*callctx.Slab)
	if !ok {
		slab = new(callctx.Slab)
	}
	ctx := slab.New(parent, deadline, v)
	s.contexts.Put(slab)
	return ctx
}
