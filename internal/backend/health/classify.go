package health

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// dialResult tells what an error of connecting means. This host may lack descriptors, ports or memory.
func dialResult(err error) Result {
	var errno syscall.Errno
	errors.As(err, &errno)
	switch errno {
	case syscall.ECONNREFUSED:
		return Refused
	case syscall.ECONNRESET: // it stood, and was closed before we looked
		return Broken
	case syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM:
		return Unknown
	}
	return Unreachable
}

// handshakeResult tells what an error of a TLS handshake means.
func handshakeResult(err error) Result {
	var untrusted *tls.CertificateVerificationError
	switch {
	case isTimeout(err):
		return Hung
	case errors.As(err, &untrusted):
		return Untrusted
	}
	return protocolResult(err)
}

// askResult tells what an error of a request means, before the answer's header was read.
func askResult(err error) Result {
	if isTimeout(err) {
		return Late
	}
	return protocolResult(err)
}

// protocolResult tells a connection that was closed from a backend that speaks, but not as it should. With TLS 1.3 a server refuses
// our certificate only after our side of the handshake is done (RFC 8446, 4.4.2.4), so this comes in both stages.
func protocolResult(err error) Result {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "remote error": // an alert
		if text := err.Error(); strings.Contains(text, "certificate") || strings.Contains(text, "access denied") {
			return Alive
		}
		return Red
	case errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return Broken
	}
	return Red
}

// statusResult tells what a status means.
func statusResult(code int) Result {
	switch code {
	case 200:
		return Ready
	case 401, 403:
		return Alive
	}
	return Red
}
