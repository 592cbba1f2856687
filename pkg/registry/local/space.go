package local

import (
	"crypto/sha256"
	"encoding/hex"
)

// space is where an address on this machine means the same: one boot, one network namespace.
type space struct {
	Boot      string `json:"boot,omitempty"`
	Namespace string `json:"netns,omitempty"`
}

// key is the part of a file's name that stands for the space: files of others need not be opened.
func (s space) key() string {
	sum := sha256.Sum256([]byte(s.Boot + "\n" + s.Namespace))
	return hex.EncodeToString(sum[:4])
}
