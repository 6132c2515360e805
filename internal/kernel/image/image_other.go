//go:build !linux

package image

// Release does nothing on this system.
func Release() error { return nil }
