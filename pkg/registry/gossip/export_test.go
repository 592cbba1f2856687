package gossip

// Kill ends a member as kill -9 ends its process: it says nothing to anybody.
func (r *Registry) Kill() { r.shut(false) }

// Addr is the member's own address.
func (r *Registry) Addr() string { return r.addr }

// NameOf is the name of a member that was started at an address.
func NameOf(addr string, start uint64) string { return nameOf(addr, start) }

// EncodeMeta is what a member says of itself.
func EncodeMeta(start, version uint64) []byte { return meta{start: start, version: version}.encode() }
