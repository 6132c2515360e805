// Package resend is what it takes to send a request once more, to another server or over another connection: its body, which
// can be read once only, and how one learns of connections.
package resend
