package local

import "golang.org/x/sys/unix"

// renameExclusive renames, unless the new name is taken: renameat2(2). By a rename the owner's open file comes to bear
// the new name, and its closing, by which a watch hears of a death, is told under it.
func renameExclusive(dir int, from, to string) error {
	switch err := unix.Renameat2(dir, from, dir, to, unix.RENAME_NOREPLACE); err {
	case unix.EINVAL, unix.ENOSYS, unix.EPERM, unix.ENOTSUP: // a file system or a sandbox without it
		return linkExclusive(dir, from, to)
	default:
		return err
	}
}
