package gossip

import (
	"errors"
	"net/netip"

	"github.com/hashicorp/memberlist"
)

const maxQueued = 256 // changes that wait to be gossiped

// delegate is what memberlist asks and tells.
type delegate struct {
	t     *table
	local bool // the member is on loopback
	wants chan want
	queue *memberlist.TransmitLimitedQueue
}

var (
	_ memberlist.Delegate      = (*delegate)(nil)
	_ memberlist.EventDelegate = (*delegate)(nil)
	_ memberlist.AliveDelegate = (*delegate)(nil)
)

func newDelegate(t *table, local bool) *delegate {
	return &delegate{
		t: t, local: local, wants: make(chan want, 128),
		queue: &memberlist.TransmitLimitedQueue{NumNodes: func() int { return t.others() + 1 }, RetransmitMult: retransmits},
	}
}

// broadcast is a message that is gossiped.
type broadcast []byte

func (b broadcast) Invalidates(memberlist.Broadcast) bool { return false }
func (b broadcast) Message() []byte                       { return b }
func (b broadcast) Finished()                             {}
func (b broadcast) UniqueBroadcast()                      {}

// gossip sends a message on. Where there are too many, the ones go that were sent most; who misses one asks for the set.
func (d *delegate) gossip(message []byte) {
	d.queue.QueueBroadcast(broadcast(message))
	d.queue.Prune(maxQueued)
}

// NodeMeta does what memberlist.Delegate says.
func (d *delegate) NodeMeta(int) []byte { return d.t.meta() }

// NotifyMsg takes a message, whose bytes are memberlist's.
func (d *delegate) NotifyMsg(b []byte) {
	v, err := decode(b)
	if err != nil {
		d.t.log.complain("a message of a member is left out", "error", err)
		return
	}
	switch v := v.(type) {
	case change:
		if d.t.change(v) {
			d.gossip(append([]byte(nil), b...))
		}
	case set:
		d.t.take(v)
	case want:
		select {
		case d.wants <- v:
		default: // it asks again
		}
	}
}

// GetBroadcasts does what memberlist.Delegate says.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.queue.GetBroadcasts(overhead, limit)
}

// LocalState gives all sets to one whom this member meets. In the exchanges that follow now and then memberlist's own part tells
// all versions, and that is enough.
func (d *delegate) LocalState(join bool) []byte {
	if !join {
		return nil
	}
	return encode(kindState, d.t.known())
}

// MergeRemoteState takes the sets of one whom this member meets.
func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	sets, err := decodeState(b)
	if err != nil {
		d.t.log.complain("a set that a member knows is left out", "error", err)
	}
	d.t.state(sets)
}

// NotifyJoin does what memberlist.EventDelegate says.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.t.join(n) }

// NotifyUpdate does what memberlist.EventDelegate says.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.t.join(n) }

// NotifyLeave does what memberlist.EventDelegate says.
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.t.leave(n) }

// NotifyAlive refuses what cannot be a member.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return err
	}
	ip, ok := netip.AddrFromSlice(n.Addr)
	switch {
	case !ok || n.Port == 0 || n.Name != nameOf(n.Address(), m.start):
		return errors.New("its name is not that of its address")
	case d.local && !loopback(ip):
		return errors.New("it is beyond this machine, and this member is not")
	case !d.t.admits(n.Name):
		return errors.New("there are too many members")
	}
	return nil
}
