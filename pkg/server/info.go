package server

import (
	"reflect"
	"time"

	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The endpoints that every server has. Users cannot register names below "Debug.".
const (
	DebugInfo   = "Debug.Info"   // answers an Info
	DebugHealth = "Debug.Health" // answers a Health
	DebugStats  = "Debug.Stats"  // answers a Stats
)

// Kind tells which sides of an endpoint stream.
type Kind string

// The kinds of endpoints.
const (
	Unary        Kind = "unary"
	ServerStream Kind = "server" // one request, many answers
	ClientStream Kind = "client" // many requests, one answer
	Bidi         Kind = "bidi"   // many of both
)

// Endpoint describes one thing that a server serves.
type Endpoint struct {
	// Name is what callers ask for: "Say.Hello".
	Name string `json:"name"`
	// Kind defaults to Unary.
	Kind Kind `json:"kind"`
	// Doc says in a sentence what it does.
	Doc string `json:"doc,omitempty"`
	// RequestType and ResponseType name the types, for people.
	RequestType  string `json:"requestType,omitempty"`
	ResponseType string `json:"responseType,omitempty"`
	// Request and Response are the JSON Schemas of one message; nil where nothing is known.
	Request  *schema.Schema `json:"request,omitempty"`
	Response *schema.Schema `json:"response,omitempty"`
	// Idempotent says that running it twice does what running it once does. Only then does a client send a call
	// again that may have run.
	Idempotent bool `json:"idempotent,omitempty"`
	// Metadata are labels of the endpoint in the registry's record.
	Metadata map[string]string `json:"metadata,omitempty"`

	request, response reflect.Type // of the messages; nil where that is not known

	// What options say; see there.
	mode     transport.PaceMode
	pooled   bool
	poolable bool // it has messages of its own to pool
}

// Info is what a server tells of itself: the answer of Debug.Info.
type Info struct {
	Name          string             `json:"name"`
	Version       string             `json:"version,omitempty"`
	ID            string             `json:"id"`
	Started       time.Time          `json:"started"`
	Metadata      map[string]string  `json:"metadata,omitempty"`
	ContentTypes  []string           `json:"contentTypes"`
	Endpoints     []Endpoint         `json:"endpoints"`
	Subscriptions []SubscriptionInfo `json:"subscriptions,omitempty"`
}

// SubscriptionInfo is a topic that the server's service takes.
type SubscriptionInfo struct {
	Topic string `json:"topic"`
	Queue string `json:"queue,omitempty"`
}

// The states of a server's health.
const (
	HealthOK       = "ok"
	HealthStarting = "starting"
	HealthFailing  = "failing"
	HealthStopping = "stopping"
)

// Health is the answer of Debug.Health.
type Health struct {
	Status string `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Stats is the answer of Debug.Stats: counts since the start. Debug.* is not counted.
type Stats struct {
	Started    time.Time       `json:"started"`
	Uptime     float64         `json:"uptime"` // seconds
	Calls      uint64          `json:"calls"`
	Errors     uint64          `json:"errors"`
	Inflight   int64           `json:"inflight"`
	Goroutines int             `json:"goroutines"`
	Memory     uint64          `json:"memory"` // bytes of heap in use
	Endpoints  []EndpointStats `json:"endpoints"`
}

// EndpointStats counts one endpoint's calls, or one subscription's messages. Times are milliseconds; P50 and P99 are off by an
// eighth at most. As long as handlers take less than 20 microseconds one call in eight is timed, and stands for eight, and
// one message in 32: a single slow one among them may be missed.
type EndpointStats struct {
	Name     string  `json:"name"`
	Calls    uint64  `json:"calls"`
	Errors   uint64  `json:"errors"`
	Inflight int64   `json:"inflight"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	Max      float64 `json:"max"`
}
