package kernel

import (
	"errors"
	"fmt"
)

// UnsupportedError says that the kernel lacks a feature. It is an errors.ErrUnsupported.
type UnsupportedError struct {
	Feature    string // what is missing, such as "nf_tables"
	MinVersion string // the first kernel that has all of it, such as "5.13"
	Err        error  // what the kernel answered
}

// Error tells what is missing and what would help.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("this kernel lacks %s: use Linux %s or later with it enabled (%v)", e.Feature, e.MinVersion, e.Err)
}

// Unwrap gives the kernel's answer and errors.ErrUnsupported.
func (e *UnsupportedError) Unwrap() []error { return []error{e.Err, errors.ErrUnsupported} }
