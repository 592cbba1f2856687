// Package nats is the registry by messages over NATS, in the subjects and words of go-micro's: services of both find each other. There is
// no store: each process answers for its own nodes, and announces them.
//
// # Messages
//
//	micro.nats.query      {"Service":{"name":"greeter",...},"Action":"get"}, or {"Service":null,"Action":"list"}. Each owner answers
//	                      with a message for each of its nodes: the service, with this one node
//	micro.nats.watch      {"Service":{...},"Action":"create"} when a node comes, changes, or is announced again; "delete" when it goes
//	micro.nats.node.<id>  who takes, or holds, an id; go-micro does not know it
//
// The JSON of a service is go-micro's. What this project adds stands in headers that go-micro does not look at: whose node it is
// (Micro-Owner), its service (Micro-Service), a number that grows with each change (Micro-Seq), and its lease in
// milliseconds (Micro-Lease). Records that are no valid nodes are left out, and the logger is told.
//
// # Leases
//
// A node is announced three times in its lease, as long as the ttl runs that its owner last registered it with. When that is over
// without a renewal it is withdrawn. When the process is killed others forget it when its lease is over: TTL of the
// [Options], or what it was registered for if that is less, and 1 s at least. Who has not heard of a node for four fifths of its lease asks
// for it. A node of go-micro has a lease of 90 s, as it tells of none.
//
// An id that a live owner holds gives others ErrConflict. NATS knows who is connected: the id of a killed process is free at
// once. Two that could not see each other, as the parts of a cluster that fell apart, may both have it; when they meet the later
// one keeps it. In a cluster an id is claimed twice, 50 ms apart, and a new node announced again after a second, as servers hear of each
// other's subscriptions a moment after they stand. Of a go-micro process's ids those are known that are followed.
//
// # What is followed
//
// The first Get, List or Watch of a service asks for its nodes, and follows from there on what is announced of it, as long as somebody
// watches it and a minute after the last Get: so the next one is answered from memory, and by the moment. As nobody knows how many will answer, a question ends when
// no more answers come; one that comes later is taken in all the same, and watches tell of it.
//
// # When NATS is away
//
// Requests fail with ErrUnavailable, as soon as no connection can be made, and the reason. Watches yield that error once, and keep what
// they know: no lease ends meanwhile. With the next connection owners announce themselves, and all that is followed is asked for anew. A
// node that left in between goes when its lease is over, counted from 3 s after that, in which owners connect again too.
package nats
