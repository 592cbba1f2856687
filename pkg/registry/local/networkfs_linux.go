package local

import "golang.org/x/sys/unix"

// networkFS names the network file system that the open folder lies on, if it does: statfs(2).
func networkFS(fd int) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return ""
	}
	return networkFSType(uint32(st.Type)) // the type is signed, and 64 bits wide on some machines
}

func networkFSType(magic uint32) string {
	switch magic {
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "smb"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "afs"
	case unix.V9FS_MAGIC:
		return "9p"
	case unix.CEPH_SUPER_MAGIC:
		return "ceph"
	case unix.CODA_SUPER_MAGIC:
		return "coda"
	case unix.OCFS2_SUPER_MAGIC:
		return "ocfs2"
	case 0x01161970: // GFS2_MAGIC of linux/magic.h
		return "gfs2"
	case 0x0BD00BD0: // LL_SUPER_MAGIC of lustre_user.h
		return "lustre"
	}
	return ""
}
