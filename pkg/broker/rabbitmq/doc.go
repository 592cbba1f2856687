// Package rabbitmq is the broker that hands messages to RabbitMQ, over AMQP 0-9-1, in go-micro's layout.
//
// # What is promised
//
// Publish returns when RabbitMQ has confirmed each message: it is in every queue that stood for its topic then, and on disk
// in those of subscriptions with a queue name. What is confirmed such a queue has until a handler has acknowledged it: over the
// restart of RabbitMQ, of its members, and of the publisher. A handler acknowledges by returning nil. So messages come at
// least once: twice where RabbitMQ, a connection or a process goes between the handler's end and the acknowledgement, or where
// a publisher publishes again what was not confirmed. Message.ID is the same then.
//
// A subscription without a queue name has a queue that is its own, in memory, and goes with its connection: what is published
// between a break and the subscription's return it misses. Otherwise the same holds for it.
//
// A message whose handler fails, panics or outlasts its time is put at the end of its queue, after 0.1 s the first time and three
// times as long with each further one, 5 s at most, for any member to have. Such a message has lost its place in the
// order. When Tries deliveries have failed it is published to the topic's broker.DeadTopic, with the reason, and kept there, in
// the queue "dead": subscribe to that topic with that queue to read them. A member that is closed, or goes without an answer,
// counts as no failure. So a message that kills its handler's process comes again and again; of a quorum queue 20 times, then
// RabbitMQ makes it a dead letter by itself.
//
// Messages of one Publish, and of Publishes that follow each other, come in their order to a subscription with Concurrency(1), and
// are begun in their order by others, as long as none fails and no connection breaks.
//
// A subscription has at most twice as many messages at hand as it may handle at once, and 256 where it shares its queue with
// nobody; what is more waits at RabbitMQ, which bounds it by policies alone (max-length). A queue that is full by a policy
// that says reject-publish fails Publish. A RabbitMQ that is short of memory or disk takes no messages; Publish waits for
// it until its context ends, and the error says so. Deliveries go on meanwhile.
//
// # Layout
//
// Messages go to the topic exchange "micro", which is durable, with the topic as the routing key and the body as it is. The headers
// are AMQP headers, with Micro-Topic and Micro-ID among them; message_id and content_type are set beside. A queue name stands
// for the durable queue
//
//	<exchange>:<topic>:<queue>
//
// at RabbitMQ, a classic queue unless Options.QueueType says otherwise; of a name beyond 255 bytes the end is a hash. It stays when its
// members go, and keeps what is published: delete it when it has done its duty. A classic queue stands on one node of a cluster
// and waits for it; a quorum queue outlives nodes. Before RabbitMQ 4 a quorum queue that is new is forgotten by a server that is killed
// within 3 s; the Subscribe that makes one waits for so long before it binds the queue, and returns.
//
// # When RabbitMQ is away
//
// The connection is made again by itself: at the next Publish, and at once for subscriptions, with pauses up to 2 s as long as it
// fails. Meanwhile Publish fails with broker.ErrUnavailable and the reason, at once. What was written and not confirmed when the
// connection broke fails with an error that says that it is not known what became of it. Who publishes it again, with the same
// ID, may have it delivered twice.
package rabbitmq
