package gossip

import (
	"math/rand/v2"
	"time"
)

const (
	announcePace = 100 * time.Millisecond // between two announcements
	askers       = 8                      // questions at one time
	answerers    = 2
	few          = 16 // members who are told of a change one by one, too
)

// announce tells the others of each change of the own set, and of the door; of many in a row as one.
func (r *Registry) announce() {
	for {
		select {
		case <-r.life.Done():
			return
		case <-r.table.announce:
		}
		if c, ok := r.table.news(); ok {
			if message := encode(kindChange, c); len(message) <= maxPacket {
				r.delegate.gossip(message)
				r.tell(message)
			}
		}
		_ = r.list.UpdateNode(announcePace) // it fails when it has not been sent to all by then, and goes on
	}
}

// tell sends a message to each member where they are few. A message that is gossiped goes to a handful of members drawn at random; of few,
// most may have just been killed, and those that live would hear of it by the next exchange, half a minute later.
func (r *Registry) tell(message []byte) {
	for _, n := range r.table.atMost(few) {
		if err := r.list.SendBestEffort(&n, message); err != nil {
			r.log.bounded(levelQuiet, "a member cannot be told of a change", "member", n.Name, "error", text(err))
		}
	}
}

// follow asks owners for the sets that are not as they announce them.
func (r *Registry) follow() {
	turns := make(chan struct{}, askers)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		ask, again := r.table.questions(time.Now(), nonce)
		for _, q := range ask {
			select {
			case <-r.life.Done():
				return
			case turns <- struct{}{}:
			}
			r.busy.Go(func() {
				defer func() { <-turns }()
				if err := r.list.SendReliable(&q.node, encode(kindWant, q.want)); err != nil {
					r.log.bounded(levelQuiet, "a member cannot be asked for its nodes", "member", q.node.Name, "error", text(err))
				}
			})
		}
		if timer.Reset(time.Hour); !again.IsZero() {
			timer.Reset(time.Until(again))
		}
		select {
		case <-r.life.Done():
			return
		case <-r.table.behind:
		case <-timer.C:
		}
	}
}

// answer gives the own set to those who ask.
func (r *Registry) answer() {
	for {
		select {
		case <-r.life.Done():
			return
		case w := <-r.delegate.wants:
			node, ok := r.table.find(w.From)
			if !ok {
				continue
			}
			if err := r.list.SendReliable(&node, encode(kindSet, r.table.mine(w.Nonce))); err != nil {
				r.log.bounded(levelQuiet, "a member cannot be told its answer", "member", node.Name, "error", text(err))
			}
		}
	}
}

func nonce() uint64 { return 1 + rand.Uint64N(1<<53) } // JSON's numbers are good for it, whoever reads them
