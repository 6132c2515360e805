// Package measure times what a proxy under test does: its start, its changes, and the connections that go through it.
package measure
