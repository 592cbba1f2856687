// Package gossip is the registry without a server: the processes that use it find each other, over the membership protocol of
// hashicorp/memberlist (SWIM), and each holds the whole list.
//
// # What each member knows
//
// A [Registry] is a member. It owns the nodes that are registered through it, its set, which has a version that rises with each
// change. The version stands in what memberlist says of every member, so that all hear of it; the nodes themselves travel
// in three ways:
//
//   - a change that fits into a packet is gossiped: what was put and what is gone, from one version to another;
//   - a member whose version of a set is another than the owner's asks the owner for the whole set, over TCP;
//   - two members that meet, by a seed, exchange all sets that they know.
//
// A set takes the place of the one before it, so that what was deleted needs no tombstone, and cannot come back by
// somebody who was away. Get, List and Watch answer from memory.
//
// # Lives and leases
//
// A node lives as long as its owner: when memberlist finds a member dead its nodes go. A killed process is found after some 6 s.
// A node that is not renewed within its ttl is withdrawn by its owner. A renewal sends nothing.
//
// A member that was held for dead, as in a partition, is back with all its nodes when one hears of it again. So that one
// does, seeds that are no members, and members that were lost, are tried again for ever, or a day.
//
// A member at the address of an earlier one was started after that one's end, and hides its nodes at once.
//
// # One id, two owners
//
// Register gives ErrConflict where another member's node with the id is known. Of two that did not know of each other the
// one that was registered first stays, by the owners' clocks, and of the same moment the one whose owner's name sorts
// first; the other is withdrawn by its owner, whose next Register gives ErrConflict.
//
// # On one machine
//
// Without seeds, members of one machine meet at 127.0.0.1:7946, the door: whoever has registered a node, and finds nobody there,
// listens there too, beside a port of its own. When it ends, or is killed, another that has registered takes its place: each tries to listen
// there ten times a second. Who finds nobody there looks for half a second before he takes the place, or lists nothing. Any seed on
// loopback works so.
//
// # Limits
//
// A member has at most 4096 nodes with 8 MB of records, and is told so by Register; there are at most 4096 members. A member
// keeps 64 MB of records. What is malformed or beyond a limit is dropped, and the logger is told.
//
// # Who may join
//
// With a key all that is sent is encrypted and authenticated (AES-GCM), and who has the key is believed. Without it whoever
// reaches a member is: so an address beyond loopback is refused without a key, unless Insecure is set. There is no TLS, as half
// of the protocol is UDP.
//
// go-micro's gossip registry stands on memberlist too, but has messages of its own; the two do not mix.
package gossip
