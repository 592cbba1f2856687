package broker

import (
	"strconv"
	"strings"
	"unicode"
)

// A broker whose server keeps messages until they are acknowledged delivers one that a handler failed again, a number of times. A
// message that none of those took is a dead letter: it is published to DeadTopic, with these pairs added to its
// Header, and delivered no more. What is published there fares as on other topics, but is not put into a further one.
const (
	DeadTopicKey  = "micro-dead-topic"  // the topic that it was published to
	DeadQueueKey  = "micro-dead-queue"  // the queue whose members did not take it; none for a subscriber without one
	DeadTriesKey  = "micro-dead-tries"  // how often it was delivered
	DeadReasonKey = "micro-dead-reason" // what the last handler returned, up to 512 bytes of its text
)

const (
	deadSuffix = ".dead"
	maxReason  = 512
)

// DeadTopic gives the topic of the dead letters of topic: "orders.dead" for "orders". It is the topic itself where that is one of
// dead letters. Of a name that gets too long by it the end is cut off.
func DeadTopic(topic string) string {
	if IsDeadTopic(topic) {
		return topic
	}
	return topic[:min(len(topic), MaxTopic-len(deadSuffix))] + deadSuffix
}

// IsDeadTopic reports whether topic is one of dead letters.
func IsDeadTopic(topic string) bool { return strings.HasSuffix(topic, deadSuffix) }

// DeadLetter gives what is published of m when none of tries deliveries to queue was acknowledged, the last for cause: a message to
// DeadTopic with m's ID and Body, and m's Header as far as it has room for the pairs above. Backends call it.
func DeadLetter(m *Message, queue string, tries int, cause error) *Message {
	dead := &Message{Topic: DeadTopic(m.Topic), ID: m.ID, Header: m.Header.Clone(), Body: m.Body}
	reason := "not known"
	if cause != nil {
		reason = strings.ToValidUTF8(strings.Map(printable, cause.Error()), "?")
		reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
	}
	pairs := []string{DeadTopicKey, m.Topic, DeadTriesKey, strconv.Itoa(tries), DeadReasonKey, reason}
	if queue != "" {
		pairs = append(pairs, DeadQueueKey, queue)
	}
	for i := 0; i < len(pairs); i += 2 {
		if md, err := dead.Header.Set(pairs[i], pairs[i+1]); err == nil {
			dead.Header = md
		}
	}
	return dead
}

func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return ' '
	}
	return r
}
