// Package etcd is the registry on an etcd cluster, in the layout of go-micro's: services of both stand side by side on
// one etcd, and see each other.
//
// # Layout
//
// A node stands under one key, below a prefix that is /micro/registry/ unless it is set:
//
//	/micro/registry/<service>/<node id>
//
// A '/' in an id is a '-' in the key. The value is JSON: the service, with this one node.
//
//	{"name":"greeter","version":"1.0.0","metadata":{},
//	 "endpoints":[{"name":"Say.Hello","request":{"name":"Request","type":"Request","values":[...]},"response":...,"metadata":{}}],
//	 "nodes":[{"id":"greeter-7f3a91c2","address":"10.0.0.5:8080","metadata":{"protocol":"mucp"}}]}
//
// Nothing here adds a field to it: what this project says beyond go-micro stands in the node's metadata. Of a record
// that is read, the service's metadata holds for its node, where that does not say otherwise. Records that are no valid
// nodes, or stand under another key than theirs, are left out, and the logger is told.
//
// # Leases
//
// A node's key hangs on a lease of its own, so that it goes with its process: the [Registry] keeps the lease alive, over
// one stream for all, as long as the ttl runs that its owner last registered it with. When that is over without a renewal
// the node is withdrawn. When the process is killed etcd takes it away, TTL of the [Options] after the last sign of life
// at most; etcd's leases are of whole seconds, 2 at least, and it finds out half a second late. A node whose key or lease
// goes otherwise, by a revoked lease or by somebody's hand, is put again at once, under a new lease where that is needed.
//
// A key that is there belongs to whoever has its lease: to register it, or to deregister it, gives others ErrConflict.
//
// # When etcd is away
//
// Requests fail with ErrUnavailable, as soon as no connection can be made, and the reason. Watches yield that error once,
// keep what they know, and go on by themselves. Leases are kept by etcd over its restart; what was lost all the same its
// owner's Registry puts again. The members of a cluster are tried in turn.
//
// Get and List ask any one member, so that they work without a majority, and may be a moment behind. So does a watch, and
// reads the changes from the revision of that listing on. A listing that a majority has confirmed takes the place of
// changes that are compacted away, and follows upon each failure.
package etcd
