// Package dns is the registry in a DNS zone, by dynamic updates (RFC 2136) that are signed (TSIG, RFC 8945), in the layout of DNS-SD
// (RFC 6763). Services that somebody else has put there as SRV records are found as well.
//
// # Layout
//
// Below the zone, for a node greeter-7f3a91c2 of the service greeter at 10.0.0.5:8080:
//
//	_services._micro._tcp            PTR  _greeter._sub._micro._tcp
//	_greeter._sub._micro._tcp        PTR  greeter-7f3a91c2._micro._tcp
//	greeter-7f3a91c2._micro._tcp     SRV  0 0 8080 ip-10-0-0-5-1c9d2a40
//	greeter-7f3a91c2._micro._tcp     TXT  "micro=1" "owner=..." "ttl=30000" "until=1700000030000" "j={...}"
//	ip-10-0-0-5-1c9d2a40             A    10.0.0.5
//
// So a service is a subtype of _micro._tcp, and its nodes are instances, as `dns-sd -B _micro._tcp,_greeter` lists them. This package
// reads the PTR and TXT records alone: SRV, A and AAAA are there for other programs. The TXT record has strings of key=value; "j" is
// the node's JSON, the one that the registries on etcd and ZooKeeper write, in parts of 253 bytes. Above 900 bytes it is compressed (deflate) and
// stands under "z". What is over 16 KiB even so goes without its endpoints, and has "without=endpoints": the node itself is asked for
// them, as with mDNS. Metadata that does not fit is an ErrInvalid. The address of a node has a name of its own, which goes with the node; a
// node at a host's name has that in its SRV record, and one whose address is no host:port has none.
//
// A service's name, and a node's id, is one label: with its dots, and '/' and '_', which DNS lets stand there. DNS does not tell upper case from
// lower and has 63 bytes for a label: a name with upper case, or a longer one, is its beginning, '~' and 20 digits of its SHA-256.
//
// # Owners
//
// Each Registry makes up an owner, 16 random bytes. Every change of a node's records has a prerequisite: that the TXT record is the one
// that was seen last, or that there is none. So of two that want one id, one is told that the records changed, looks, and gives ErrConflict
// if it finds another owner whose time is not over; and nobody removes a record that was renewed meanwhile.
//
// # Liveness
//
// Nothing in DNS lapses. A TXT record says for how long it holds, and is written anew after a third of that, with another "until": TTL of the
// [Options], or what the owner registered for if that is less. Clocks of machines differ, so a reader does not compare them if it can
// help it: a record that it has seen for a ttl, by its own monotonic clock, without a renewal, is over. Who sees a record for the first time,
// as a command does, has only "until", which is the owner's clock: it takes the record for over Skew after that. If that is wrong, for a clock
// that is further off, the next renewal tells. What was seen before the nameserver was away has a ttl anew when it is back, since
// nobody could renew it.
//
// So a killed process's node is gone for a watch after its ttl and a poll, for who first looks after its ttl and Skew. Its records remain.
// Whoever has nodes of the same service looks at it once in TTL, and removes what it has watched for its ttl; a clock alone makes
// nobody remove anything, but for [Registry.Prune].
//
// # Services with SRV records
//
// Where a service has no node in the layout above, its SRV record is asked for, at _greeter._tcp below the zone, or as SRV of the Options
// says. With SRV "_grpc._tcp.{service}.svc" and the zone cluster.local, Kubernetes' headless services are found as greeter.default. The
// nodes are the targets of the least priority value, with ids target/port. They have the target's least address, as the nameserver gives it, or its name. Their
// weights stand in their metadata. DNS has no list of such services: List and a watch of all have those alone that Services names.
//
// # Watches
//
// DNS tells nobody of changes: a watch looks when the answers' TTL is over, after a second at least and Poll at most, and yields what
// differs. The records of this package have a TTL of a sixth of theirs in the TXT record, 5 s at most. What is registered through the same Registry is
// seen at once. A look asks one question for the service, by UDP, or TCP where that is not enough, and one for each node over one TCP
// connection: it is for hundreds of nodes, and not for tens of thousands.
//
// # When the nameserver is away
//
// Requests fail with ErrUnavailable at once, with the reason, or after Timeout where it says nothing. Watches yield that error once, keep what they
// know, and go on by themselves; nodes are renewed, or put again if they are lost, when it is back. An answer is believed that has the
// question's id, and comes from the nameserver's address; with a key, that is signed.
package dns
