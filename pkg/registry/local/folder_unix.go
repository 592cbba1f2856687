//go:build unix

package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// folder is the open folder. Its methods name entries by bare names, so that what happens to the path meanwhile does
// not matter. A folder is used by one goroutine.
type folder struct {
	path string
	fd   int
	id   identity
}

// defaultPaths are the default folders, best first.
func defaultPaths() []string {
	uid := strconv.Itoa(os.Geteuid())
	var paths []string
	for _, run := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + uid} {
		var st unix.Stat_t
		if !filepath.IsAbs(run) || unix.Stat(run, &st) != nil || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
			continue // XDG Base Directory: it must be the user's, and nobody else may write
		}
		paths = append(paths, filepath.Join(run, "micro"))
	}
	return append(paths, filepath.Join(os.TempDir(), "micro-"+uid))
}

// openFolder opens the folder, and checks that it is this user's, closed to others, and on this machine. The error
// wraps fs.ErrNotExist where there is none.
func openFolder(p place) (*folder, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(p.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		if fi, e := os.Lstat(p.path); e == nil && fi.Mode()&fs.ModeSymlink != 0 {
			err = errors.New("it is a symbolic link: remove it, or name the folder that it leads to")
		}
		return nil, unavailable("folder %s: %w", p.path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, unavailable("folder %s: %w", p.path, err)
	}
	d := &folder{path: p.path, fd: fd, id: identify(&st)}
	if err := p.check(d, &st); err != nil {
		d.close()
		return nil, unavailable("folder %s: %w", p.path, err)
	}
	return d, nil
}

// check tells why the folder must not be used.
func (p place) check(d *folder, st *unix.Stat_t) error {
	forbidden := uint32(0o002)
	if p.private {
		forbidden = 0o077
	}
	switch mode := uint32(st.Mode); {
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d, not to user %d: name another folder", st.Uid, os.Geteuid())
	case mode&forbidden != 0:
		return fmt.Errorf("its mode %#o opens it to other users: chmod 700 %s", mode&0o777, p.path)
	}
	if name := networkFS(d.fd); name != "" {
		return fmt.Errorf("it lies on a network file system (%s), where locks do not tell who is alive: name a folder on this machine", name)
	}
	return nil
}

func (d *folder) close() { _ = unix.Close(d.fd) }

// names gives the folder's entries, limit at most. It is called once for a folder.
func (d *folder) names(limit int) ([]string, error) {
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, d.fail("", err)
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer f.Close()
	names, err := f.Readdirnames(limit)
	if err != nil && err != io.EOF && !errors.Is(err, fs.ErrNotExist) { // removed meanwhile: it is empty
		return nil, d.fail("", err)
	}
	return names, nil
}

// peek looks at an entry. The sight's data stands in buf or a larger buffer, until buf is used again. An error says
// nothing of the entry: this process ran out of descriptors, perhaps.
func (d *folder) peek(name string, limit int, buf []byte) (sight, error) {
	for {
		s, again, err := d.peekOnce(name, limit, buf)
		if !again {
			return s, err
		}
	}
}

func (d *folder) peekOnce(name string, limit int, buf []byte) (s sight, again bool, err error) {
	fd, st, s, err := d.open(name)
	if err != nil || s.state != alive {
		return s, false, err
	}
	defer unix.Close(fd)
	if st.Size > int64(limit) {
		return sight{state: strange, why: fmt.Sprintf("it has %d bytes, a record has %d at most", st.Size, limit)}, false, nil
	}
	held, err := isLocked(fd)
	if err != nil {
		return sight{}, false, d.fail(name, err)
	}
	if !held {
		// Its owner is gone, or has just put another file in its place, or has withdrawn it.
		switch now, err := d.lookup(name); {
		case err != nil:
			return sight{}, false, err
		case now == identity{}:
			return sight{state: gone}, false, nil
		case now != identify(&st):
			return sight{}, true, nil
		}
		s.state = dead
	}
	s.data, err = readAll(fd, buf, limit)
	if err != nil {
		return sight{}, false, d.fail(name, err)
	}
	return s, false, nil
}

// open opens an entry to read. Where the sight is not alive there is no descriptor.
func (d *folder) open(name string) (int, unix.Stat_t, sight, error) {
	var st unix.Stat_t
	fd, err := retry(func() (int, error) { // O_NONBLOCK: do not wait for the other end of a named pipe
		return unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	switch err {
	case nil:
	case unix.ENOENT:
		return -1, st, sight{state: gone}, nil
	case unix.ELOOP, unix.EMLINK: // EMLINK: FreeBSD
		return -1, st, sight{state: strange, why: "it is a symbolic link"}, nil
	case unix.EACCES, unix.EPERM, unix.ENXIO, unix.EOPNOTSUPP: // ENXIO, EOPNOTSUPP: sockets
		return -1, st, sight{state: strange, why: err.Error()}, nil
	default:
		return -1, st, sight{}, d.fail(name, err)
	}
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, st, sight{}, d.fail(name, err)
	}
	why := ""
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		why = "it is no regular file"
	case int(st.Uid) != os.Geteuid():
		why = fmt.Sprintf("it belongs to user %d", st.Uid)
	default:
		return fd, st, sight{state: alive}, nil
	}
	_ = unix.Close(fd)
	return -1, st, sight{state: strange, why: why}, nil
}

// lookup gives the identity of what stands under name now, zero if nothing does.
func (d *folder) lookup(name string) (identity, error) {
	var st unix.Stat_t
	switch err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err {
	case nil:
		return identify(&st), nil
	case unix.ENOENT:
		return identity{}, nil
	default:
		return identity{}, d.fail(name, err)
	}
}

// reap removes a file of ours whose owner is gone, and leaves everything else.
//
// A file is removed by its owner, or else under the folder's lock: so what stands under the name cannot be exchanged
// between the look at it and its removal.
func (d *folder) reap(name string) error {
	switch err := unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		defer unix.Flock(d.fd, unix.LOCK_UN)
	case unix.EWOULDBLOCK:
		return errBusy
	default:
		return d.fail("", err)
	}
	fd, st, s, err := d.open(name)
	if err != nil || s.state != alive {
		return err
	}
	defer unix.Close(fd)
	if held, err := isLocked(fd); held || err != nil {
		return err
	}
	if now, err := d.lookup(name); err != nil || now != identify(&st) {
		return err
	}
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && err != unix.ENOENT {
		return d.fail(name, err)
	}
	return nil
}

// create makes a file with data in it, locked, for place or replace.
func (d *folder) create(name string, data []byte) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, d.fail(name, err)
	}
	f := os.NewFile(uintptr(fd), d.pathOf(name))
	if _, err = f.Write(data); err == nil {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		d.discard(name, f)
		return nil, unavailable("%w", err)
	}
	return f, nil
}

// discard takes away a file that create made.
func (d *folder) discard(name string, f *os.File) {
	_ = unix.Unlinkat(d.fd, name, 0)
	_ = f.Close()
}

// publish gives a created file its name; the error wraps fs.ErrExist where that name is taken.
func (d *folder) publish(temp, name string) error {
	if err := renameExclusive(d.fd, temp, name); err != nil {
		return d.fail(name, err)
	}
	return nil
}

// replace gives a created file the name of old, which is the caller's own.
func (d *folder) replace(temp, name string) error {
	if err := unix.Renameat(d.fd, temp, d.fd, name); err != nil {
		return d.fail(name, err)
	}
	return nil
}

// withdraw removes the caller's own file, if it still stands under name, and lets go of it.
func (d *folder) withdraw(name string, f *os.File) {
	if d.holds(name, f) {
		_ = unix.Unlinkat(d.fd, name, 0)
	}
	_ = f.Close()
}

// holds reports whether the open file f stands under name.
func (d *folder) holds(name string, f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	now, err := d.lookup(name)
	return err == nil && now == identify(&st)
}

// oldUnlocked reports whether name is a file of ours that nobody holds, last changed before a time.
func (d *folder) oldUnlocked(name string, before time.Time) bool {
	fd, st, s, err := d.open(name)
	if err != nil || s.state != alive {
		return false
	}
	defer unix.Close(fd)
	seconds, nanoseconds := st.Mtim.Unix()
	if !time.Unix(seconds, nanoseconds).Before(before) {
		return false
	}
	held, err := isLocked(fd)
	return err == nil && !held
}

func (d *folder) fail(name string, err error) error {
	return unavailable("%w", &fs.PathError{Op: "access", Path: d.pathOf(name), Err: err})
}

func (d *folder) pathOf(name string) string { return filepath.Join(d.path, name) }

// isLocked reports whether the file's owner holds it. A free file is left with a shared lock, which keeps nobody else
// from finding it free; it ends with the descriptor.
func isLocked(fd int) (bool, error) {
	switch err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err {
	case nil:
		return false, nil
	case unix.EWOULDBLOCK:
		return true, nil
	default:
		return false, err
	}
}

func identify(st *unix.Stat_t) identity {
	return identity{device: uint64(st.Dev), number: uint64(st.Ino)}
}

// readAll reads a file from its start into buf, or into a larger buffer. More than limit bytes are not read.
func readAll(fd int, buf []byte, limit int) ([]byte, error) {
	buf = buf[:0]
	for len(buf) <= limit {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := retry(func() (int, error) { return unix.Pread(fd, buf[len(buf):cap(buf)], int64(len(buf))) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		buf = buf[:len(buf)+n]
	}
	return buf, nil
}

// retry calls f until no signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}
