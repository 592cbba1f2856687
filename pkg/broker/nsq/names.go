package nsq

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

const (
	maxName   = 64
	ephemeral = "#ephemeral" // the end of a channel's or topic's name that stands in memory alone, until its last client goes
	slash     = "_2F"
	escape    = "_5F"
	cut       = "_7E" // before the hash of a name that is too long
	hashLen   = 16
)

// nameOf gives NSQ's name for a topic or a queue. Those that are not cut give the name back by unescape, and none is another's.
func nameOf(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch rest := name[i:]; {
		case rest[0] == '/':
			b.WriteString(slash)
		case strings.HasPrefix(rest, slash) || strings.HasPrefix(rest, escape) || strings.HasPrefix(rest, cut):
			b.WriteString(escape)
		default:
			b.WriteByte(rest[0])
		}
	}
	if b.Len() <= maxName {
		return b.String()
	}
	sum := sha256.Sum256([]byte(name))
	hash := base32.StdEncoding.EncodeToString(sum[:])[:hashLen]
	return b.String()[:maxName-len(cut)-hashLen] + cut + hash
}

// ownName gives a channel that nobody else has.
func ownName() string { return rand.Text()[:20] + ephemeral }
