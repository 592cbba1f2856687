// Package nats is the transport over NATS: services call each other though none of them accepts connections, from wherever they reach a
// NATS.
//
// # Addresses
//
// A listener's address is a subject: an inbox of NATS that it makes up, or a name that it is given. Whoever dials publishes a hello to it,
// with a subject of his own for the reply; the listener makes a subject for its end, and welcomes him. From there on each end publishes to the other's subject.
// That nobody subscribes to a subject NATS says at once, so a listener that has gone, and a peer that was killed, are known
// with the first word to them.
//
// # Frames
//
// Each message of NATS is a frame; the comment of type frame has its layout. A message of the transport that is larger than
// 64 KiB, or than NATS's max_payload, is cut into several, between which those of other messages may stand. Frames are numbered:
// NATS delivers at most once, and where it has lost one the connection ends, as one over TCP would.
//
// # Flow
//
// An end has up to 1 MiB under way to the other, and then waits until that has read. So a peer that does not read holds up who
// sends to it, and nothing piles up: not at NATS, which would drop it, nor in the peer's memory.
//
// # The end of a connection
//
// Close tells the other end, after all that was sent before. A connection ends as well when its peer does not know it, when the peer is silent though it was
// asked, and when this process's connection to NATS is lost: what was under way then may be lost too. Listeners stay,
// and connections are dialled anew. A Call or an Open of which NATS says that nobody got it is answered by a refusal, so that the client
// sends it elsewhere.
//
// go-micro's transport on NATS, a JSON message for each request without flow or an end, is not spoken.
package nats
