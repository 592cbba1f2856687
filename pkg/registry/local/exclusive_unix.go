//go:build unix

package local

import "golang.org/x/sys/unix"

// linkExclusive renames, unless the new name is taken, by link(2).
func linkExclusive(dir int, from, to string) error {
	if err := unix.Linkat(dir, from, dir, to, 0); err != nil {
		return err
	}
	return unix.Unlinkat(dir, from, 0)
}
