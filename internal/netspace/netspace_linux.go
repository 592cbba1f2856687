package netspace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is a network of its own. Its methods may be called concurrently.
type Machine struct {
	space *os.File // the namespace
}

// Open makes a machine with loopback alone. Close ends it.
func Open() (*Machine, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	m := &Machine{}
	err := away(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("no network namespace: %w", err)
		}
		return nil
	}, func() (err error) {
		m.space, err = os.Open(own)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := m.IP("link set lo up"); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// own is the namespace of the thread that opens it.
const own = "/proc/thread-self/ns/net"

// Close lets the machine go. It is there until the processes that run in it have ended, and its sockets are closed.
func (m *Machine) Close() { _ = m.space.Close() }

// Do runs f in the machine: sockets that f itself opens, and processes that it starts, stay there. A goroutine that f starts does not
// run there.
func (m *Machine) Do(f func() error) error {
	return away(func() error {
		if err := unix.Setns(int(m.space.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return nil
	}, f)
}

// away runs f on a thread that leave has brought to another namespace, and brings the thread back. It is not left to end: a process
// that was once started from it, by whatever test, may be bound to it and be killed (PR_SET_PDEATHSIG, prctl(2)).
func away(leave, f func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open(own)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = home.Close() }()
	if err := leave(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if failed := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); failed != nil {
			err = fmt.Errorf("leave a network namespace: %w", failed) // the thread stays locked: nobody else gets it
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// IP runs ip(8) in the machine, with words that spaces part.
func (m *Machine) IP(words string) error { return m.Do(func() error { return ip(words) }) }

// path names the machine's namespace for ip(8).
func (m *Machine) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.space.Fd()) }

func ip(words string) error {
	if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", words, err, out)
	}
	return nil
}

func write(file, text string) error { return os.WriteFile(file, []byte(text), 0) }

// all runs steps until one fails.
func all(run func(string) error, steps ...string) error {
	for _, step := range steps {
		if err := run(step); err != nil {
			return err
		}
	}
	return nil
}

// OpenLAN makes machines on one link, 10.77.0.1 and on. Close ends it.
func OpenLAN(size int) (*LAN, error) {
	l := &LAN{}
	ok := false
	defer func() {
		if !ok {
			l.Close()
		}
	}()
	var err error
	if l.middle, err = Open(); err != nil {
		return nil, err
	}
	if err := all(l.middle.IP, "link add name bridge0 type bridge", "link set bridge0 up"); err != nil {
		return nil, err
	}
	for i := range size {
		m, err := Open()
		if err != nil {
			return nil, err
		}
		l.Machines = append(l.Machines, m)
		if err := errors.Join(
			all(l.middle.IP, fmt.Sprintf("link add port%d type veth peer name lan netns %s", i, m.path()), fmt.Sprintf("link set port%d master bridge0 up", i)),
			all(m.IP, "addr add "+l.Host(i)+"/24 dev lan", "link set lan up"),
		); err != nil {
			return nil, err
		}
	}
	ok = true
	return l, nil
}

// Host gives a machine's address.
func (l *LAN) Host(i int) string { return fmt.Sprintf("10.77.0.%d", i+1) }

// Plug puts a machine's cable in or out.
func (l *LAN) Plug(i int, in bool) error {
	return l.middle.IP(fmt.Sprintf("link set port%d %s", i, map[bool]string{true: "up", false: "down"}[in]))
}

// Close lets all machines go.
func (l *LAN) Close() {
	for _, m := range append(l.Machines, l.middle) {
		if m != nil {
			m.Close()
		}
	}
}
