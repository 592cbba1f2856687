// Package consul is the registry on Consul, by its HTTP API, in the layout of go-micro's: services of both stand side by side
// in one Consul, and see each other.
//
// # Layout
//
// A node is a service of the agent that is asked: its ID is the node's, Name the service's, Address and Port the address. What
// Consul has no field for stands in tags, each the hexadecimal text of what zlib makes of
//
//	t-  {"zone":"a"}                    one for each pair of the metadata, by key
//	e-  {"name":"Say.Hello",...}        one for each endpoint
//	v-  1.0.0                           the version, always
//
// Those of older versions of go-micro, which hold the text itself after t=, e= or v=, are read, too. Tags that are none of these
// are passed over. A service without a version's tag is another program's, and no node. What is no valid node, or has tags that
// come to more than registry.MaxRecord bytes, is left out, and the logger is told.
//
// Meta holds, as with go-micro, the pairs of the metadata that Consul takes there, for its own filters; it is not read. Beside
// them it names who registered the node, under [MetaOwner].
//
// # Checks
//
// A node has one check, service:ID, with a TTL, which the [Registry] passes as long as the ttl runs that the node's owner last
// registered it with. When that is over without a renewal the node is deregistered. When the process is killed the check lapses, TTL of the
// [Options] after it was last passed at most: the node is critical then and on no list; Consul removes it a minute later. A
// node is listed unless one of its checks, or of its agent's, is critical, as with go-micro.
//
// An id belongs to whoever registered it on that agent, until its check lapses: to register it, or to deregister it, gives others
// ErrConflict. Consul cannot tell two who register the same id within the same moment apart; the one who comes last has it then, and the
// first gives up when its node is looked at. On two agents an id can stand twice; the first agent's shows.
//
// # When Consul is away
//
// Requests fail with ErrUnavailable and the reason. Watches yield that error once, keep what they know, and go on by themselves.
// An agent that was started anew without its state gets the nodes again as soon as it answers: one request waits at the agent
// for as long as nodes are held, and tells of its end.
//
// # Watches
//
// The watch of one service is one request that Consul answers when the service changes, with its whole set. The watch of all
// asks so for the names of services and for the critical checks, and reads all services anew, a while after each change: it is for
// programs that list, not for each caller. What is read may be a moment behind, and is read without a leader, too, of
// which Consul does not tell a watch. One that had lost its Consul goes on with what the leader knows.
package consul
