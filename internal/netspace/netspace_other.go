//go:build !linux

package netspace

import (
	"errors"
	"testing"
)

var errLinux = errors.New("network namespaces are Linux's")

// Machine is a network of its own.
type Machine struct{}

func Open() (*Machine, error)          { return nil, errLinux }
func (*Machine) Close()                {}
func (*Machine) Do(func() error) error { return errLinux }
func (*Machine) IP(string) error       { return errLinux }
func OpenLAN(int) (*LAN, error)        { return nil, errLinux }
func (*LAN) Host(int) string           { return "" }
func (*LAN) Plug(int, bool) error      { return errLinux }
func (*LAN) Close()                    {}

// NewSite skips the test.
func NewSite(t testing.TB) *Site {
	t.Helper()
	t.Skipf("SKIPPED: %v", errLinux)
	return nil
}

func (*Site) Way() *Way { return nil }
func (*Way) Cut(Flow)   {}
func (*Way) Heal()      {}

// Alone skips the test.
func Alone(t *testing.T) bool {
	t.Helper()
	t.Skipf("SKIPPED: %v", errLinux)
	return false
}
