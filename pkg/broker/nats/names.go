package nats

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	maxStream   = 32
	maxConsumer = 200 // the server has a limit of 255
	emptyWord   = "~" // no topic has it
)

// subjectOf gives the subject of a topic: itself, but that subjects have no empty words.
func subjectOf(topic string) string {
	if !strings.Contains(topic, "..") && !strings.HasSuffix(topic, ".") {
		return topic
	}
	words := strings.Split(topic, ".")
	for i, w := range words {
		if w == "" {
			words[i] = emptyWord
		}
	}
	return strings.Join(words, ".")
}

// consumerOf gives the name of a queue's consumer. Two queues have two names.
func consumerOf(topic, queue string) string {
	name := plain(topic) + "+" + plain(queue)
	if len(name) > maxConsumer {
		sum := sha256.Sum256([]byte(name))
		name = name[:maxConsumer-33] + "+" + hex.EncodeToString(sum[:16])
	}
	return name
}

// plain writes what cannot stand in a consumer's name otherwise.
func plain(s string) string {
	var out strings.Builder
	for i := range len(s) {
		if alnum(s[i]) {
			out.WriteByte(s[i])
		} else {
			fmt.Fprintf(&out, "=%02X", s[i])
		}
	}
	return out.String()
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

func validStream(s string) bool {
	for i := range len(s) {
		if !alnum(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= maxStream
}
