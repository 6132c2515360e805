// Package contender runs a proxy under test in a namespace and reads what it costs.
package contender
