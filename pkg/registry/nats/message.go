package nats

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// What is asked for and told, in go-micro's words.
const (
	actionGet    = "get"
	actionList   = "list"
	actionCreate = "create"
	actionUpdate = "update"
	actionDelete = "delete"
)

// The headers of messages about a node, which go-micro does not look at.
const (
	headerOwner   = "Micro-Owner"   // whose node it is
	headerService = "Micro-Service" // the node's service, so that who does not care for it need not read the record
	headerSeq     = "Micro-Seq"     // grows with each change of the owner's nodes: what comes late is known by it
	headerLease   = "Micro-Lease"   // milliseconds that the node lives without another word
)

// foreignLease is how long a node of go-micro lives without a word: its owner says create each 30 s, unless it is told otherwise, and
// is asked before the time is over.
const foreignLease = 90 * time.Second

// event is go-micro's registry.Result: what is published on the watch subject, and asked on the query subject.
type event struct {
	Service json.RawMessage
	Action  string
}

// query makes a question for a service, or for all. A question for one has a service, else go-micro's processes die of it.
func query(subject, reply, service string) *nats.Msg {
	e := event{Action: actionList}
	if service != "" {
		name, _ := json.Marshal(service)
		e = event{Action: actionGet, Service: json.RawMessage(`{"name":` + string(name) + `,"version":"","metadata":null,"endpoints":null,"nodes":null}`)}
	}
	data, _ := json.Marshal(e) // of text alone
	return &nats.Msg{Subject: subject, Reply: reply, Data: data}
}

// asked gives what a question is for: a service, or all for the empty name.
func asked(m *nats.Msg) (service string, ok bool) {
	var q struct {
		Service *struct {
			Name string `json:"name"`
		}
		Action string
	}
	if json.Unmarshal(m.Data, &q) != nil || m.Reply == "" {
		return "", false
	}
	switch {
	case q.Action == actionList:
		return "", true
	case q.Action == actionGet && q.Service != nil && q.Service.Name != "":
		return q.Service.Name, true
	}
	return "", false
}

// news makes the message that a node is there, or is gone.
func news(subject, action, owner string, n *notice) *nats.Msg {
	data, _ := json.Marshal(event{Service: json.RawMessage(n.value), Action: action}) // the value is JSON
	return &nats.Msg{Subject: subject, Data: data, Header: n.header(owner)}
}

// notice is what is said of an own node.
type notice struct {
	service string
	value   string // the record
	seq     uint64
	lease   time.Duration
}

func (n *notice) header(owner string) nats.Header {
	return nats.Header{
		headerOwner: {owner}, headerService: {n.service},
		headerSeq: {strconv.FormatUint(n.seq, 10)}, headerLease: {strconv.FormatInt(n.lease.Milliseconds(), 10)},
	}
}

// answer makes the message that says of a node to somebody who asked.
func (n *notice) answer(reply, owner string) *nats.Msg {
	return &nats.Msg{Subject: reply, Data: []byte(n.value), Header: n.header(owner)}
}

// source is who says something of nodes, as the headers tell.
type source struct {
	owner string // empty: go-micro
	seq   uint64
	lease time.Duration
}

func sourceOf(m *nats.Msg) source {
	s := source{owner: m.Header.Get(headerOwner), lease: foreignLease}
	if s.owner == "" {
		return s
	}
	s.seq, _ = strconv.ParseUint(m.Header.Get(headerSeq), 10, 64)
	if ms, err := strconv.ParseInt(m.Header.Get(headerLease), 10, 64); err == nil {
		s.lease = min(max(time.Duration(ms)*time.Millisecond, minLease), maxLease)
	}
	return s
}

// told reads what was published on the watch subject.
func told(m *nats.Msg) (nodes []registry.Node, gone bool, err error) {
	var e event
	if err := json.Unmarshal(m.Data, &e); err != nil {
		return nil, false, err
	}
	switch e.Action {
	case actionCreate, actionUpdate, "put":
	case actionDelete:
		gone = true
	default:
		return nil, false, nil
	}
	nodes, err = record.DecodeAll(e.Service)
	return nodes, gone, err
}

// nobody reports whether a message is NATS's word that nobody subscribes to what was asked.
func nobody(m *nats.Msg) bool { return len(m.Data) == 0 && m.Header.Get("Status") == "503" }
