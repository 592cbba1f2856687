// Package zookeeper is the registry on a ZooKeeper ensemble, in the layout of go-micro's: services of both stand side by side on
// one ZooKeeper, and see each other. It needs ZooKeeper 3.5.3 or later.
//
// # Layout
//
// A node stands at one path, below a prefix that is /micro-registry unless it is set:
//
//	/micro-registry/<service>/<node id>
//
// A '/' in an id is a '-' in the path. What stands there is JSON: the service, with this one node.
//
//	{"name":"greeter","version":"1.0.0","metadata":{},
//	 "endpoints":[{"name":"Say.Hello","request":{"name":"Request","type":"Request","values":[...]},"response":...,"metadata":{}}],
//	 "nodes":[{"id":"greeter-7f3a91c2","address":"10.0.0.5:8080","metadata":{"protocol":"mucp"}}]}
//
// Nothing here adds a field to it: what this project says beyond go-micro stands in the node's metadata. Of a record
// that is read, the service's metadata holds for its node, where that does not say otherwise. Records that are no valid
// nodes, stand at another path than theirs or may not be read are left out, and the logger is told.
//
// The node is ephemeral, where go-micro's are permanent: both are read. A service's folder is a container, which ZooKeeper removes
// about a minute after its last node has gone; the prefix is permanent.
//
// # Sessions
//
// A node lives by a session of the [Registry], which is kept as long as the ttl runs that its owner last registered it with. When that is
// over without a renewal the node is withdrawn. When the process is killed ZooKeeper takes it away: after the session's time,
// which is the ttl, TTL of the [Options] at most, and no less and no more than the server's own bounds. Nodes with
// about the same ttl share a session. One that is lost is made anew, and its nodes are put again. A node that goes or is changed
// by somebody's hand is put right by its next renewal, or after a third of the session's time, 10 s at most.
//
// A path belongs to the session that its node lives by: to register it, or to deregister it, gives others ErrConflict. What is
// permanent, as go-micro's nodes are, belongs to others too.
//
// # Watches
//
// A watch reads over a session of its own, which all of a Registry's readers share. ZooKeeper tells once that a path has changed, and not
// what: the path is read again, and the next change asked for with the same request, so that none is missed. A change of a node
// costs that one request; a node that comes or goes also one for the names in its folder. A listing is a request for
// each node. When the connection breaks all is listed again.
//
// # When ZooKeeper is away
//
// Requests fail with ErrUnavailable and the reason, as soon as no server can be reached. Watches yield that error once, keep what
// they know, and go on by themselves. Sessions outlast a restart of the servers; what was lost all the same is put again. The
// servers are tried in turn, at least a second between two rounds. Each server answers from what it knows, which may be a moment
// behind. Without a majority none answers.
//
// # Who may write
//
// With a login everything that is written, from the prefix down, is its user's alone to change and anybody's to read: services that share a
// prefix share a user, or an operator makes the prefix beforehand. Without a login it is anybody's to change, as
// go-micro has it. ZooKeeper checks no password: who has a wrong one is another user.
package zookeeper
