// Package origin gives every port of every Service and pod of a cluster a browser origin of its own, so that it can be
// used as if it ran on this computer: http://<port>.<service>.<namespace>.svc.localhost:8001/ and
// http://<port>.<pod>.<namespace>.pod.localhost:8001/. Browsers and most resolvers send every name below localhost to
// the loopback address (RFC 6761, section 6.3), so nothing has to be configured.
//
// # How a request travels
//
//	browser ─► Parse ─► resolve (Service, EndpointSlices) ─► tunnel to one pod ─► http.Transport over the tunnel ─► app
//	                                             └─ not allowed or no pod ─► services/NAME:PORT/proxy of the API server
//
// A tunnel is one pods/portforward connection, SPDY in a WebSocket as kubectl port-forward has it, or plain SPDY where
// the API server knows no better. Every TCP connection to the app is a pair of streams in it. The app is reached by the
// loopback address inside the pod, so NetworkPolicies of the pod do not apply.
//
// Over a tunnel the app gets the request as the browser sent it: Host, Cookie, Authorization, path and query byte for
// byte. The kubeconfig's credential opens the tunnel and never goes through it. Certificates of apps are not verified:
// they are issued for names that nobody can check here, and the way to the pod is already authenticated by the API
// server. Over services/proxy the API server takes the Authorization header for itself, so the client's goes along as
// X-Backend-Authorization, and the paths, cookies and links are what the API server makes of them.
//
// # Limits
//
// SPDY as Kubernetes speaks it has no flow control for single streams. A client that stops reading an answer is
// buffered up to MaxBuffered; after that its tunnel serves no new requests, and after StallTimeout the answer is cut if
// others wait behind it. An app that does not read what is uploaded stops the tunnel in the other direction: after StuckTimeout
// new requests take another one.
package origin
