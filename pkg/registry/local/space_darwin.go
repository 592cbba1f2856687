package local

import "golang.org/x/sys/unix"

// thisSpace is this boot: macOS has no network namespaces.
func thisSpace() space {
	boot, _ := unix.Sysctl("kern.bootsessionuuid")
	return space{Boot: boot}
}
