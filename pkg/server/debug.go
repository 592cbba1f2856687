package server

import (
	"context"
	"encoding/binary"
	"maps"
	"reflect"
	"runtime"
	"time"

	"github.com/cb02dfca/micro/pkg/schema"
)

// debugCalls bounds the Debug.* calls under way at once. They have a share of their own, and are not counted in Stats.
const debugCalls = 64

func (s *Server) registerDebug() {
	debug := func(name, doc string, response reflect.Type, answer func() any) {
		e := Endpoint{Name: name, Doc: doc, Idempotent: true, Response: schema.Of(response), ResponseType: response.Name(),
			request: reflect.TypeFor[struct{}](), response: response}
		Blocking()(&e) // HealthFunc may wait, and reading the memory's figures stops the world
		_ = s.handle(e, func(_ context.Context, c *Call) error { return sendDebug(c, answer()) }, nil)
	}
	debug(DebugInfo, "What this server is, and what it serves.", reflect.TypeFor[Info](), func() any { return s.info() })
	debug(DebugHealth, "Whether this server can do its work.", reflect.TypeFor[Health](), func() any { return s.Health() })
	debug(DebugStats, "What this server has done since its start.", reflect.TypeFor[Stats](), func() any { return s.stats() })
}

// protobufer is an answer of Debug.* that go-micro's clients ask for in protobuf, by the messages of its debug.proto.
type protobufer interface{ appendProtobuf(dst []byte) []byte }

// sendDebug sends an answer in the caller's codec.
func sendDebug(c *Call, answer any) error {
	if m, ok := answer.(protobufer); ok && c.ContentType() == "application/protobuf" {
		return c.SendRaw("", m.appendProtobuf(nil))
	}
	return c.Send(answer)
}

// appendProtobuf appends the message HealthResponse: 1 status.
func (h Health) appendProtobuf(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, 1<<3|2), uint64(len(h.Status)))
	return append(dst, h.Status...)
}

// appendProtobuf appends the message StatsResponse: 1 timestamp, 2 started, 3 uptime, 4 memory, 5 threads, 7 requests, 8 errors. Times are in seconds.
func (st Stats) appendProtobuf(dst []byte) []byte {
	for field, n := range [...]uint64{
		1: uint64(time.Now().Unix()), 2: uint64(st.Started.Unix()), 3: uint64(st.Uptime), 4: st.Memory, 5: uint64(st.Goroutines),
		7: st.Calls, 8: st.Errors,
	} {
		if n != 0 {
			dst = binary.AppendUvarint(append(dst, byte(field<<3)), n)
		}
	}
	return dst
}

func (s *Server) info() Info {
	info := Info{
		Name: s.name, Version: s.version, ID: s.id, Started: s.started.UTC(), Metadata: maps.Clone(s.metadata),
		ContentTypes: s.codecs.ContentTypes(), Endpoints: s.Endpoints(),
	}
	for _, sub := range s.Subscriptions() {
		info.Subscriptions = append(info.Subscriptions, SubscriptionInfo{Topic: sub.Topic, Queue: sub.Queue})
	}
	return info
}

// Health is what Debug.Health answers.
func (s *Server) Health() Health {
	switch {
	case s.stopping.Load():
		return Health{Status: HealthStopping}
	case s.health != nil:
		return s.health()
	}
	return Health{Status: HealthOK}
}

func (s *Server) stats() Stats {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	st := Stats{
		Started: s.started.UTC(), Uptime: time.Since(s.started).Seconds(),
		Goroutines: runtime.NumGoroutine(), Memory: mem.HeapAlloc, Endpoints: []EndpointStats{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.names() {
		if !isDebug(name) {
			st.add(s.endpoints[name].stats.read(name))
		}
	}
	for _, sub := range s.subscriptions {
		st.add(sub.stats.read("topic " + sub.Topic))
	}
	return st
}

func (st *Stats) add(e EndpointStats) {
	st.Calls += e.Calls
	st.Errors += e.Errors
	st.Inflight += e.Inflight
	st.Endpoints = append(st.Endpoints, e)
}
