//go:build unix

package kubectlproxy

import "syscall"

// privateFiles has new files be this user's alone until the function that it returns is called. It holds for the whole
// process.
func privateFiles() (restore func()) {
	old := syscall.Umask(0o077)
	return func() { syscall.Umask(old) }
}
