// Package load asks HTTP servers and times their answers: many small requests, watches, and large bodies.
package load
