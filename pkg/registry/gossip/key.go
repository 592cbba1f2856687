package gossip

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

var errKey = errors.New("want 16, 24 or 32 bytes in base64: openssl rand -base64 32 makes one")

// readKey fills in the key of the file, and checks it.
func (o *Options) readKey() error {
	if o.KeyFile != "" {
		if len(o.Key) > 0 {
			return errors.New("both a key and a key file are given")
		}
		var err error
		if o.Key, err = keyFile(o.KeyFile); err != nil {
			return err
		}
	}
	switch len(o.Key) {
	case 0, 16, 24, 32:
		return nil
	}
	return fmt.Errorf("a key of %d bytes: want 16, 24 or 32", len(o.Key))
}

// keyFile reads a file of one line. No error tells what it holds.
func keyFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	key, err := parseKey(string(data))
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", name, err)
	}
	return key, nil
}

func parseKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimRight(text, "\r\n"))
	if err != nil || len(key) != 16 && len(key) != 24 && len(key) != 32 {
		return nil, errKey
	}
	return key, nil
}
