// Package loop relays TCP connections in event loops: one goroutine per loop, none per connection. It picks no backends
// and checks none; whoever uses it does. It runs on Linux only.
//
// A session is a client, a backend, and little more:
//
//	         header whole          connected        first byte of the backend
//	header ───────────────► connecting ─────► opening ───────────────► relaying ───► closed
//	   │     (or none wanted)   ▲   │            │                        │
//	   │                        │   │ refused,   │ silent, broken         │ Shed
//	   │                        └───┘ timeout    │ (the flight kept)      ▼
//	   │                        └────────────────┘                      ending ────► closed
//	   └──────────────────────────────────────────────────────────────────────────► closed
//
// Every arrow to the left asks the Balancer for another backend; if there is none, the client is reset. From every state
// a reset of either side, End, or the end of Run leads to closed at once, and both sides are reset. The exception: where a
// session is relaying, its client speaks TLS, and it is not the client that broke, it goes by way of ending, and the client
// sees an orderly end (FIN), which TLS does not take for one.
//
// A session belongs to one loop. It has two descriptors, news of which come edge-triggered, once for all; a buffer while the
// side that it is written to does not take it, during which nothing more is read from the other; and a pipe instead while
// much flows (splice(2)).
package loop
