// Package tcp is the door to Linux for whoever moves bytes between TCP connections without a goroutine for each: epoll,
// sockets that never block, splice(2), and what the kernel knows of a connection. Sockets are plain descriptors, and whoever
// opens one closes it. It runs on Linux only.
//
// Calls that cannot block are made without telling Go's scheduler (RawSyscall), which saves a tenth of a small read: the
// collector waits for them, but they take microseconds.
package tcp
