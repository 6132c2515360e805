package filewatch

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Most is how much is read of a file that a user names, in bytes, if nothing else is said. A ConfigMap or a Secret holds no
// more; the system's bundle of authorities has a fifth of it.
const Most = 1 << 20

// Read returns what a regular file holds; symbolic links are followed. It neither waits for somebody to write nor reads
// without end: a pipe, a device, a socket and a folder are errors, as is a file of more than most bytes. Errors name the file;
// that of one that is not there is fs.ErrNotExist.
//
// A file on a mount that hangs still holds up the caller.
func Read(path string, most int64) ([]byte, error) {
	// Before it is opened as well: that alone does something at some devices, such as a watchdog.
	if info, err := os.Stat(path); err == nil {
		if err := regular(path, info); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|nonblocking, 0) // something else may be there by now
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err == nil {
		err = regular(path, info)
	}
	if err != nil {
		return nil, err
	}
	return upTo(f, path, most)
}

// upTo reads all of a file, and no more than it takes to see that it is too large.
func upTo(f io.Reader, path string, most int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is larger than %d bytes", most)}
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// ReadPair reads a certificate and its key, both in PEM, as Read does.
func ReadPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := Read(certFile, Most)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := Read(keyFile, Most)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// regular returns an error that says what a thing is if it is no regular file.
func regular(path string, info fs.FileInfo) error {
	var what string
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		what = "folder"
	case mode&fs.ModeNamedPipe != 0:
		what = "pipe"
	case mode&fs.ModeSocket != 0:
		what = "socket"
	case mode&fs.ModeDevice != 0:
		what = "device"
	default:
		what = "thing of mode " + mode.Type().String()
	}
	return &fs.PathError{Op: "read", Path: path, Err: errors.New("it is a " + what + ", not a file")}
}
