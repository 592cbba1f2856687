//go:build !windows

package store

import (
	"errors"
	"fmt"
	"os"
)

// syncDir has the names in a folder on disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return nil
}
