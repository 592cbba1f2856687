// Package nsq is the broker on NSQ: a topic is NSQ's topic, a queue its channel, and messages have go-micro's form.
//
// # What is promised
//
// Publish returns when an nsqd has confirmed the messages. It goes to one of Options.Servers, and to another where that one is away
// or refuses for a reason of its own; what has no confirmation when the connection breaks is not sent again, since it may have
// been taken: the error says so, and who publishes again with the same Message.ID may have it delivered twice. The
// Report has no Deliveries: a server stands between. All messages of one topic are one command for NSQ, in parts of 512 KiB: NSQ takes
// a part whole or not at all.
//
// A message comes at least once to each queue: it is the queue's until a handler has returned nil. An nsqd keeps what waits in
// memory, beyond its --mem-queue-size on disk, and writes the rest to disk when it is stopped. So what it had in memory is lost when it is
// killed, and all that it has while it is away: NSQ does not replicate. Messages come twice where a connection goes before NSQ has heard
// that they were handled, or where a handler runs for longer than nsqd's --max-msg-timeout (15 minutes).
//
// A subscription without a queue has a channel of its own at each nsqd, in memory, which goes with its connection: what is published
// between a break and its return it misses, and of what waits for it NSQ drops what is beyond --mem-queue-size (10000 messages). What
// was published before Subscribe does not come, also where NSQ had kept it because nobody had subscribed to the topic yet. The
// first queue of a topic does get that.
//
// NSQ promises no order. As it is, messages of one publisher come in order from one nsqd to a subscription with Concurrency(1), as long
// as none comes again and no more wait than NSQ has in memory.
//
// # Failures
//
// A message whose handler fails, panics or outlasts its time comes again, after RetryWait and twice as long each time, up to Tries
// deliveries. A delivery counts when nsqd sent it, though the process died with it. After the last the message is published to
// [broker.DeadTopic], with the pairs that stand there, and finished. So is what is no envelope, at once. What a subscriber of a dead topic
// fails is dropped after its tries, and the logger told. When a subscriber dies another gets what it had after AckWait; one that is
// closed gives it back at once. Handlers may run for longer than AckWait: nsqd is told that they do.
//
// Concurrency is also what NSQ sends at most before it hears of an outcome, spread over the nsqd's that the subscription is
// connected to, one at least from each.
//
// # Discovery
//
// Subscriptions connect to all of Options.Servers, and to the nsqd's that have the topic by the word of one of Options.Lookupd, which are
// asked each LookupInterval. With Lookupd alone Publish goes to one of all nsqd's that are registered there; an nsqd that gets
// a topic for the first time is then found within LookupInterval, and keeps what is published until then for the first channel.
// Subscribe fails where neither an nsqd nor a lookupd answers. Connections that break are made again for ever.
//
// # Names
//
// NSQ's names have 64 bytes of letters, digits, '.', '_' and '-'. A '/' is written "_2F", and a '_' before "2F", "5F" or "7E" as
// "_5F". Of a longer name the end is "_7E" and 16 characters of its hash.
package nsq
