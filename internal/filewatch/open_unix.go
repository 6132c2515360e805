//go:build unix

package filewatch

import "syscall"

// nonblocking has the opening of a pipe return at once, although nobody writes to it.
const nonblocking = syscall.O_NONBLOCK
