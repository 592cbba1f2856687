// Package googlepubsub is the broker on Google Cloud Pub/Sub: a topic is one of Pub/Sub's, a queue a subscription, bodies go as they are
// and headers as attributes, as with go-micro.
//
// # What is promised
//
// Publish returns when Pub/Sub has stored the messages. What it does not confirm is sent again, for Options.Timeout: so a message may be
// stored twice, with the same Message.ID. An error that wraps broker.ErrUnavailable says that it is not known whether it is stored. The Report has
// no Deliveries: a server stands between. Messages of one topic go together, up to 1000 or 8 MB; where several such parts are
// published some may be stored when another fails.
//
// A message comes at least once to each queue, and to each subscription without one, from their Subscribe on. A handler acknowledges by
// returning nil. If it returns an error, panics or outlasts its time the message comes again, after RetryWait at least and longer each time,
// for seven days, up to Tries deliveries. Pub/Sub counts those, and counts approximately; a message that kills its
// process is counted too. After the last it is published to [broker.DeadTopic], with the pairs that stand there, and
// acknowledged. Pub/Sub does that itself where the processes died, by the subscription's dead letter policy, if its service
// account has the roles for it; then without those pairs. What a subscriber of a dead topic fails is dropped after its tries in one
// process, and the logger told.
//
// A handler may run for as long as it likes: Pub/Sub is told that it does. A subscription that is closed gives back at once what it has
// not handled; what one has whose process dies goes to another after the acknowledgement deadline, 10 s to a minute.
//
// There is no order, also not with Concurrency(1), unless Options.Ordering is set where messages are published and where the queue is first
// subscribed to: then those of one Broker to a topic come in order, one after the other, and one that comes again
// brings those behind it again. Pub/Sub carries 1 MB/s in order for each publisher then.
//
// A subscription has as many messages at hand as it handles at once (Concurrency).
//
// # What is made
//
// Topics are made when they are first published or subscribed to, subscriptions by Subscribe. That of a queue stays for as long as it
// is there, also without members: delete it when it has done its duty. That of a subscription without a queue is
// deleted by Close, and where the process dies by Pub/Sub, after a day without use. What is there already is used as it is:
// its deadlines, order and dead letters are then what they are. So a program that may not make things works, where all
// that it needs stands.
//
// # Names
//
// A topic's id is its name, with "%2F" for '/'; the subscription of a queue is "topic+queue", of a subscriber without one "topic+~" and a
// random text. An id that would begin with a digit or "goog", or have fewer than 3 characters, has "t~" before it; of one
// over 200 characters the end is "~" and 16 characters of its hash.
package googlepubsub
