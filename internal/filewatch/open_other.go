//go:build !unix

package filewatch

// nonblocking is nothing where files in a folder are never pipes.
const nonblocking = 0
