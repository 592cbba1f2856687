//go:build !unix

package http

import "math"

// maxFiles is how many file descriptors this process may have: here the system sets no limit.
func maxFiles() int { return math.MaxInt32 }
