// Package contender runs a proxy under test, in a namespace or without, and reads what it costs.
package contender
