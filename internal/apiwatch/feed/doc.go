// Package feed keeps what is made of the objects of an API server up to date: a reflector lists and watches one kind, each
// object is converted as it streams in, and nothing of it is kept but what it was converted to. It knows whether the
// API server answers.
package feed
