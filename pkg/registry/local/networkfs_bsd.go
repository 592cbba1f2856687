//go:build darwin || freebsd

package local

import "golang.org/x/sys/unix"

// networkFS names the network file system that the open folder lies on, if it does: statfs(2).
func networkFS(fd int) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || uint64(st.Flags)&uint64(unix.MNT_LOCAL) != 0 {
		return ""
	}
	return unix.ByteSliceToString(st.Fstypename[:])
}
