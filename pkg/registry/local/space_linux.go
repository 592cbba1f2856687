package local

import (
	"os"
	"strings"
)

// thisSpace is this process's: proc_sys_kernel(5), namespaces(7). Without /proc its parts are empty, for all processes
// that have none.
func thisSpace() space {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	ns, _ := os.Readlink("/proc/self/ns/net")
	return space{Boot: strings.TrimSpace(string(boot)), Namespace: ns}
}
