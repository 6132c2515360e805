// Package echo is the test server of the lab, the image lab/echo: it speaks the protocols that go through a cluster's
// proxies, and each of its answers tells which pod answered, on which node, and which client address it saw.
package echo
