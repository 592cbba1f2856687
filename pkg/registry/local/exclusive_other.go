//go:build unix && !linux

package local

func renameExclusive(dir int, from, to string) error { return linkExclusive(dir, from, to) }
