// Package objects makes the Services and EndpointSlices that the proxies under test serve, and changes them through the API.
package objects
