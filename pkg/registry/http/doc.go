// Package http is the registry that is reached over HTTP: its client. The server, which "micro registry" runs, is package server below it.
//
// # Protocol
//
// All bodies are JSON (application/json, RFC 8259). A node is an object as [registry.Node] marshals it.
//
//	PUT    /v1/nodes/{id}?ttl=30s      registers, changes or renews a node; the body is the node, its id may be left out
//	GET    /v1/nodes/{id}              one node
//	DELETE /v1/nodes/{id}?service=S    takes it away; without service, whatever its service is
//	DELETE /v1/nodes/{id}?force=true   takes it away from whoever owns it, who may put it again
//	DELETE /v1/nodes                   takes all nodes of the lease away
//	GET    /v1/nodes                   the nodes of all services
//	GET    /v1/services                the services' names, with the number and the versions of their nodes
//	GET    /v1/services/{name}         the nodes of a service; 404 where there is none
//	GET    /v1/watch?service=S         a stream of sets; without service, of all services; see below for changes=true
//	GET    /healthz                    how the server is; needs no token
//	GET    /readyz                     the same, with 503 where the server cannot tell who is registered; needs no token
//	GET    /metrics                    counters and gauges as Prometheus reads them
//	GET    /                           a page for browsers that shows the nodes, live; it asks for the token itself. Others are told of these paths
//
// Leases. A node stays for its ttl, a Go duration such as 30s, unless it is put again. The server has a default, and
// bounds into which it moves a ttl; its answer says which ttl was given. A longer one than its longest is refused for a node that is put with
// owner=none, since nobody would renew it. Who puts a node sends a secret in the header
// Micro-Lease, 32 to 128 hexadecimal digits from a random source, or is given one in the answer. To renew, change or
// remove the node before its ttl is over takes the same secret (unless it was put with owner=none, for nobody); whoever has another gets 409, and learns from
// Retry-After after how many seconds the id is free at the latest. One secret may hold many nodes. A put is idempotent: where the
// answer was lost it is sent again. The answer to PUT is 201 for a new node, else 200, with the object
//
//	{"epoch":"1f0c...","revision":12,"ttl":"30s","lease":"9ab3..."}
//
// whose lease stands there only if the server made it.
//
// Sets. GET of nodes and of a service, and each line of a watch, give the object
//
//	{"epoch":"1f0c...","revision":12,"starting":true,"nodes":[...]}
//
// The epoch names what the server holds: one run of a server in memory, one file of nodes of a server with Data, whatever is
// started on it. All nodes of another epoch are gone, and their owners put them again. While
// starting is true the server has just begun to run, and owners are expected who have not come back yet: a node that is
// missing need not be gone. The revision grows with each change within an epoch.
//
// Durability. A server with Data has on disk what it answered with 2xx: nodes that were put or changed, and those that were taken away. A
// renewal, which is a put of the same node with the same ttl in whole seconds, writes nothing. Started anew it has all of them, each with its whole ttl.
//
// Watches are streams of JSON lines: the present set at once, and the whole set after each change. With the parameter
// changes=true the lines after the first tell what is new to the line before, as
//
//	{"epoch":"1f0c...","revision":13,"put":[...],"gone":["greeter-1"]}
//
// where gone comes before put, and gone may name nodes that were not told of. Who was cut off names, beside changes=true, the epoch and
// the revision of the last line that it read: the first line is then what changed since, without put and gone where nothing did. It is the whole
// set where the server does not know any more: after a restart, or 8192 changes.
// Where changes come faster than they are sent
// or read they are drawn together, and none is lost; a reader who is far behind gets a line with the whole set again, which
// takes the place of what he has. After a line of n nodes the server waits n times 100 us, 2 s at most: large sets that follow each other fast
// would queue up in the connection, and a reader would see what was true a while ago. A line without nodes, put and gone
// is a heartbeat; there is one at least every 10 s, and one when starting ends. After 30 s without a line the connection
// is dead. A reader who does not take a line for 10 s is cut off; after half a second
// where more than 32 MiB of lines, those that are the same counted once, wait for their readers, and others wait for room.
//
// Errors have the HTTP status, and as their body the object of package status with the id "micro.registry": 400 for a
// node or parameter that is wrong, 401 without the token, 404, 405 with Allow, 409 for a taken id, 413 for a record over 64 KiB, 415 for
// another content type, 421 and 403 for requests that a web page may have caused, 429 where a quota is used
// up, where a client writes too fast or has sent too many wrong tokens, and 503 while the server stops.
//
// Access. Where the server has a token, every request but /healthz carries it: "Authorization: Bearer TOKEN" (RFC 6750).
// A server without one listens on loopback only, unless told otherwise.
package http
