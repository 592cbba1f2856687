// Package rabbitmq is a transport through RabbitMQ, over AMQP 0-9-1: for services that reach RabbitMQ, and not each other. A call takes
// two hops more than a direct connection.
//
// # How it works
//
// A [Transport] has one connection to RabbitMQ, for all that it dials and accepts. The address of a listener is the name of a
// queue: exclusive, so that it goes with its process. Who dials it sends a hello there, through the default exchange, and gets a
// welcome at its direct reply address (amq.rabbitmq.reply-to), for which RabbitMQ has no queue. From then on what the client sends goes to a
// queue of the server's, and what the server sends to the client's reply address, each message with the connection's name. A
// conversation thus has nothing to do with the listener's address any more, and outlives it.
//
// Messages come in order, and each once: a gap in their numbers breaks the connection. Each end may send what fits into the
// other's window, 1 MiB and the message that begins within it, and waits then until that one has taken half of it: so
// an end that does not read holds up its peer, and RabbitMQ holds no more than the windows. Nothing is persistent, and nothing
// is confirmed: what is under way when RabbitMQ goes is lost, and so are the connections, which clients make again.
//
// # When a peer is gone
//
// A peer that closes says so. Of one that dies RabbitMQ takes the queues: what a client sends to it comes back at once, and breaks
// the connection. Beside that each end asks RabbitMQ every 2 s for peers of which it has heard nothing. A process that hangs with
// its connection open RabbitMQ notices itself, after 12 s.
//
// # When RabbitMQ is away
//
// Dial and Listen fail, at once, with the reason. Connections end. A listener takes its address again when RabbitMQ is back, with pauses
// up to 2 s; so a service needs nothing but its registration, which goes on. While RabbitMQ is short of memory or disk, Send
// waits until its context ends.
package rabbitmq
