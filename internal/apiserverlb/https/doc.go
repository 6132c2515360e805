// Package https is the balancer's mode that understands requests: it ends TLS, chooses an API server for each request, sends it
// to another one where that can do no harm, and has clients be at the API server who they are here. Watches and upgraded
// connections are streamed, and ended when their API server is lost.
package https
