// Package nats is the broker on NATS: a topic is a subject, a queue a queue group, and messages have go-micro's form, so that
// services of both publish to each other. Without a stream it is core NATS, which keeps nothing; with one it is JetStream, which
// keeps messages until they are acknowledged, and delivers them again.
//
// # What is promised
//
//	                     core NATS                                   with a stream
//	Publish returns      when the server has taken the messages      when they are stored: on its disk, and its followers'
//	a message comes      at most once                                at least once, to each queue and each subscriber
//	who is away          misses it                                   a queue gets it later; see below
//	a handler fails      the logger is told                          it comes again, and is a dead letter after Tries deliveries
//	a subscriber dies    what it had is lost                         another gets it after AckWait, or when the subscriber is closed at once
//	Publish fails        it is not published, or that is not known   it is not stored, or that is not known; with the same Message.ID
//	                                                                 it may be published again, and is stored once
//	order                that of each publisher, at each subscriber  that of the stream
//
// The Report has no Deliveries: a server stands between. Publish never waits for a server that is away, but for one that has
// just gone, for Timeout at most. All messages of one Publish are confirmed together; where that fails, some may have been taken.
//
// # Core NATS
//
// A subscription buffers PendingBytes of messages for its handlers; what comes beyond is dropped, and the logger told how many. When a
// subscription is closed what it has buffered is dropped. While NATS is away nothing is kept for anybody. Subscriptions stand again
// by themselves when it is back.
//
// With Concurrency(1) the messages of one publisher are handled in its order.
//
// # Streams
//
// The stream is made when it is first needed, unless it is there, and gets the subjects of the topics that are published
// or subscribed to, unless it has them. What stands in it otherwise is left as it is.
//
// A queue is a durable consumer, named after topic and queue: it stands from its first subscription on, for ever, and gets what is
// published from then on, or from Options.From on. A subscription without a queue has a consumer of its own that begins then
// too, and ends with it; one whose process dies is taken away after some minutes.
//
// A handler acknowledges by returning nil. If it returns an error, panics or outlasts its time the message comes again, after RetryWait and
// twice as long each time, up to Tries deliveries. A delivery counts when it was given to a handler, though that died with its
// process. After the last it is published to [broker.DeadTopic], in the same stream, with the pairs that stand there, and
// acknowledged. So is what is no envelope, at once. What a subscriber of a dead topic fails is dropped after its tries, and the logger
// told.
//
// No member is given more than it has free places for. Of a subscription without a queue with Concurrency(1) the order holds
// strictly: a message that fails comes again before the next. In a queue, and with more places, others go on meanwhile.
//
// A message that was handled may come again: when NATS or the subscriber goes before NATS has the acknowledgement, or when a
// subscriber has no connection for longer than AckWait.
//
// A consumer or a stream that somebody takes away is made again. The consumer begins behind what its subscription has had, or with the
// first message that a handler has, or that waits to come again after a failure; that of a new stream with all that is in it. What a
// member of a queue had that died, and was not given to another yet, is lost then.
//
// # Names
//
// A topic is its subject. NATS has no empty words between dots: they are written "~". A name of a consumer is
// "topic+queue", in which other characters than letters, digits, '_' and '-' are "=" and their two hexadecimal digits.
package nats
