//go:build !linux

package multi_test

// roles are of tests in network namespaces.
func roles() map[string]func() error { return nil }
