// Package image gives back what a process holds of its own executable file.
package image
