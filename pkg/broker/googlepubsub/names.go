package googlepubsub

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

const (
	maxID   = 200 // Pub/Sub takes 255, and the client's statistics as many with the project
	minID   = 3
	hashLen = 16
	prefix  = "t~" // '~', '%' and '+' are in no topic's or queue's name
)

// topicID gives the id of a topic. What is not cut gives the name back.
func topicID(topic string) string { return valid(escaped(topic)) }

// queueID gives the id of the subscription that a queue is.
func queueID(topic, queue string) string { return valid(escaped(topic) + "+" + escaped(queue)) }

// ownID gives an id that no other subscription has.
func ownID(topic string) string { return valid(escaped(topic) + "+~" + rand.Text()) }

func escaped(name string) string { return strings.ReplaceAll(name, "/", "%2F") }

func valid(id string) string {
	if len(id) < minID || id[0] >= '0' && id[0] <= '9' || strings.HasPrefix(strings.ToLower(id), "goog") {
		id = prefix + id
	}
	if len(id) > maxID {
		sum := sha256.Sum256([]byte(id))
		id = id[:maxID-1-hashLen] + "~" + base32.StdEncoding.EncodeToString(sum[:])[:hashLen]
	}
	return id
}
