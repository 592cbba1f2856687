package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// folder is the folder. Files are opened with FILE_SHARE_DELETE, so that an open file can be renamed and removed.
type folder struct {
	path string
	id   identity
}

// The byte that an owner locks: far beyond a record's end, since Windows keeps others from reading what is locked.
const lockOffsetHigh = 1 << 30

const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

// defaultPaths is the folder in %LocalAppData%, which its access list keeps for the user.
func defaultPaths() []string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil
	}
	return []string{filepath.Join(dir, "micro", "registry")}
}

// openFolder checks that the folder is one, and on this machine. The error wraps fs.ErrNotExist where there is none.
func openFolder(p place) (*folder, error) {
	fi, err := os.Lstat(p.path)
	switch {
	case err != nil:
		return nil, unavailable("folder %s: %w", p.path, err)
	case fi.Mode()&(fs.ModeSymlink|fs.ModeIrregular) != 0:
		return nil, unavailable("folder %s: it is a link: remove it, or name the folder that it leads to", p.path)
	case !fi.IsDir():
		return nil, unavailable("folder %s: it is no folder", p.path)
	}
	if root, err := windows.UTF16PtrFromString(filepath.VolumeName(p.path) + `\`); err == nil && windows.GetDriveType(root) == windows.DRIVE_REMOTE {
		return nil, unavailable("folder %s: it lies on a network drive, where locks do not tell who is alive: name a folder on this machine", p.path)
	}
	d := &folder{path: p.path}
	h, err := d.openHandle("", windows.FILE_READ_ATTRIBUTES, windows.OPEN_EXISTING)
	if err != nil {
		return nil, unavailable("folder %s: %w", p.path, err)
	}
	defer windows.CloseHandle(h)
	info, err := stat(h)
	if err != nil {
		return nil, unavailable("folder %s: %w", p.path, err)
	}
	d.id = identify(info)
	return d, nil
}

func (d *folder) close() {}

// names gives the folder's entries, limit at most.
func (d *folder) names(limit int) ([]string, error) {
	f, err := os.Open(d.path)
	if err == nil {
		defer f.Close()
		var names []string
		if names, err = f.Readdirnames(limit); err == nil || err == io.EOF {
			return names, nil
		}
	}
	if isMissing(err) {
		return nil, nil
	}
	return nil, d.fail("", err)
}

// peek looks at an entry. The sight's data stands in buf or a larger buffer, until buf is used again.
func (d *folder) peek(name string, limit int, buf []byte) (sight, error) {
	h, info, s, err := d.open(name, windows.GENERIC_READ)
	if err != nil || s.state != alive {
		return s, err
	}
	f := os.NewFile(uintptr(h), d.pathOf(name))
	defer f.Close()
	if size := int64(info.FileSizeHigh)<<32 | int64(info.FileSizeLow); size > int64(limit) {
		return sight{state: strange, why: fmt.Sprintf("it has %d bytes, a record has %d at most", size, limit)}, nil
	}
	held, err := isLocked(h)
	if err != nil {
		return sight{}, d.fail(name, err)
	}
	if !held {
		s.state = dead
		now, err := d.lookup(name)
		if err != nil {
			return sight{}, err
		}
		if now == (identity{}) {
			return sight{state: gone}, nil
		}
		if now != identify(info) {
			return d.peek(name, limit, buf)
		}
	}
	buf = buf[:0]
	if cap(buf) < limit+1 {
		buf = make([]byte, 0, limit+1)
	}
	n, err := io.ReadFull(f, buf[:limit+1])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return sight{}, d.fail(name, err)
	}
	s.data = buf[:n]
	return s, nil
}

// open opens an entry. Where the sight is not alive there is no handle.
func (d *folder) open(name string, access uint32) (windows.Handle, *windows.ByHandleFileInformation, sight, error) {
	h, err := d.openHandle(name, access, windows.OPEN_EXISTING)
	switch {
	case err == nil:
	case isMissing(err):
		return 0, nil, sight{state: gone}, nil
	case errors.Is(err, windows.ERROR_ACCESS_DENIED), errors.Is(err, windows.ERROR_SHARING_VIOLATION): // or it is being deleted
		return 0, nil, sight{state: strange, why: err.Error()}, nil
	default:
		return 0, nil, sight{}, d.fail(name, err)
	}
	info, err := stat(h)
	if err != nil {
		_ = windows.CloseHandle(h)
		return 0, nil, sight{}, d.fail(name, err)
	}
	if info.FileAttributes&(windows.FILE_ATTRIBUTE_DIRECTORY|windows.FILE_ATTRIBUTE_REPARSE_POINT|windows.FILE_ATTRIBUTE_DEVICE) != 0 {
		_ = windows.CloseHandle(h)
		return 0, nil, sight{state: strange, why: "it is no regular file"}, nil
	}
	return h, info, sight{state: alive}, nil
}

// lookup gives the identity of what stands under name now, zero if nothing does.
func (d *folder) lookup(name string) (identity, error) {
	h, err := d.openHandle(name, windows.FILE_READ_ATTRIBUTES, windows.OPEN_EXISTING)
	if err != nil {
		if isMissing(err) || errors.Is(err, windows.ERROR_ACCESS_DENIED) { // denied: it is being deleted
			return identity{}, nil
		}
		return identity{}, d.fail(name, err)
	}
	defer windows.CloseHandle(h)
	info, err := stat(h)
	if err != nil {
		return identity{}, d.fail(name, err)
	}
	return identify(info), nil
}

// reap removes a file of ours whose owner is gone, and leaves everything else. The file is removed by its handle: what
// has come under its name meanwhile stays.
func (d *folder) reap(name string) error {
	h, _, s, err := d.open(name, windows.GENERIC_READ|windows.DELETE)
	if err != nil || s.state != alive {
		return err
	}
	defer windows.CloseHandle(h)
	if held, err := isLocked(h); held || err != nil {
		return err
	}
	yes := byte(1) // FILE_DISPOSITION_INFO
	if err := windows.SetFileInformationByHandle(h, windows.FileDispositionInfo, &yes, uint32(unsafe.Sizeof(yes))); err != nil {
		return d.fail(name, err)
	}
	return nil
}

// create makes a file with data in it, locked, for publish or replace.
func (d *folder) create(name string, data []byte) (*os.File, error) {
	h, err := d.openHandle(name, windows.GENERIC_READ|windows.GENERIC_WRITE, windows.CREATE_NEW)
	if err != nil {
		return nil, d.fail(name, err)
	}
	f := os.NewFile(uintptr(h), d.pathOf(name))
	if _, err = f.Write(data); err == nil {
		err = windows.LockFileEx(h, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, lockRange())
	}
	if err != nil {
		d.discard(name, f)
		return nil, unavailable("%w", err)
	}
	return f, nil
}

// discard takes away a file that create made.
func (d *folder) discard(name string, f *os.File) {
	_ = os.Remove(d.pathOf(name))
	_ = f.Close()
}

// publish gives a created file its name; the error wraps fs.ErrExist where that name is taken.
func (d *folder) publish(temp, name string) error {
	from, err := windows.UTF16PtrFromString(d.pathOf(temp))
	if err != nil {
		return d.fail(temp, err)
	}
	to, err := windows.UTF16PtrFromString(d.pathOf(name))
	if err != nil {
		return d.fail(name, err)
	}
	if err := windows.MoveFileEx(from, to, 0); err != nil {
		return d.fail(name, err)
	}
	return nil
}

// replace gives a created file the name of the caller's own. An open file cannot be renamed over: it is moved aside.
func (d *folder) replace(temp, name string) error {
	aside := temp + ".old"
	if err := d.publish(name, aside); err != nil {
		return err
	}
	if err := d.publish(temp, name); err != nil {
		_ = d.publish(aside, name)
		return err
	}
	_ = os.Remove(d.pathOf(aside)) // it goes when the caller closes it
	return nil
}

// withdraw removes the caller's own file, if it still stands under name, and lets go of it.
func (d *folder) withdraw(name string, f *os.File) {
	if d.holds(name, f) {
		_ = os.Remove(d.pathOf(name))
	}
	_ = f.Close()
}

// holds reports whether the open file f stands under name.
func (d *folder) holds(name string, f *os.File) bool {
	info, err := stat(windows.Handle(f.Fd()))
	if err != nil {
		return false
	}
	now, err := d.lookup(name)
	return err == nil && now == identify(info)
}

// oldUnlocked reports whether name is a file of ours that nobody holds, last changed before a time.
func (d *folder) oldUnlocked(name string, before time.Time) bool {
	h, info, s, err := d.open(name, windows.GENERIC_READ)
	if err != nil || s.state != alive {
		return false
	}
	defer windows.CloseHandle(h)
	if !time.Unix(0, info.LastWriteTime.Nanoseconds()).Before(before) {
		return false
	}
	held, err := isLocked(h)
	return err == nil && !held
}

func (d *folder) fail(name string, err error) error {
	return unavailable("%w", &fs.PathError{Op: "access", Path: d.pathOf(name), Err: err})
}

func (d *folder) pathOf(name string) string { return filepath.Join(d.path, name) }

func (d *folder) openHandle(name string, access, how uint32) (windows.Handle, error) {
	path, err := windows.UTF16PtrFromString(d.pathOf(name))
	if err != nil {
		return 0, err
	}
	return windows.CreateFile(path, access, shareAll, nil, how,
		windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
}

// isLocked reports whether the file's owner holds it. A free file is left with a shared lock, which keeps nobody else
// from finding it free; it ends with the handle.
func isLocked(h windows.Handle) (bool, error) {
	switch err := windows.LockFileEx(h, windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, lockRange()); err {
	case nil:
		return false, nil
	case windows.ERROR_LOCK_VIOLATION, windows.ERROR_IO_PENDING:
		return true, nil
	default:
		return false, err
	}
}

func lockRange() *windows.Overlapped { return &windows.Overlapped{OffsetHigh: lockOffsetHigh} }

func stat(h windows.Handle) (*windows.ByHandleFileInformation, error) {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return nil, err
	}
	return &info, nil
}

func identify(info *windows.ByHandleFileInformation) identity {
	return identity{
		device: uint64(info.VolumeSerialNumber),
		number: uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
	}
}
