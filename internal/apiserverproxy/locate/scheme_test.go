package locate_test

import (
	"testing"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiwatch/directory"
)

// The scheme is the URL's, else appProtocol's, else that of the port's name, else http; a URL's "http" leaves h2c alone.
func TestScheme(t *testing.T) {
	const no, http, https = "web", "http:web:", "https:web:"
	for _, c := range []struct{ url, protocol, name, want string }{
		{no, "", "", "http"}, {http, "", "", "http"}, {https, "", "", "https"},

		{no, "http", "", "http"}, {no, "www", "", "http"}, {no, "http-alt", "", "http"}, {no, "HTTP", "", "http"},
		{no, "kubernetes.io/ws", "", "http"}, {no, "ws", "", "http"}, {no, "grpc-web", "", "http"},
		{no, "https", "", "https"}, {no, "HTTPS", "", "https"}, {no, "kubernetes.io/wss", "", "https"}, {no, "wss", "", "https"},
		{no, "h2", "", "https"}, {no, "grpcs", "", "https"}, {no, "tls", "", "https"}, {no, "kubernetes.io/https", "", "https"},
		{no, "kubernetes.io/h2c", "", "h2c"}, {no, "h2c", "", "h2c"}, {no, "http2", "", "h2c"}, {no, "grpc", "", "h2c"},
		{no, "kubernetes.io/grpc", "", "h2c"},

		{no, "", "http", "http"}, {no, "", "https", "https"}, {no, "", "https-web", "https"}, {no, "", "httpsx", "http"},
		{no, "", "web-https", "http"}, {no, "", "grpc", "h2c"}, {no, "", "grpc-api", "h2c"}, {no, "", "h2c", "h2c"},
		{no, "", "h2c-web", "h2c"}, {no, "", "grpc-web", "http"}, {no, "", "grpc-web-x", "http"}, {no, "", "grpc-webx", "h2c"},

		{no, "http", "https", "http"}, {no, "https", "grpc", "https"}, {no, "mysql", "https", "https"},
		{no, "example.com/h2c", "https", "https"}, {no, "example.com/https", "", "http"},

		{http, "https", "", "http"}, {http, "kubernetes.io/wss", "https", "http"}, {http, "", "https", "http"},
		{http, "https", "grpc", "http"}, {http, "grpc", "", "h2c"}, {http, "", "h2c", "h2c"}, {http, "http", "h2c", "http"},
		{https, "http", "http", "https"}, {https, "grpc", "h2c", "https"},
	} {
		w := web(directory.ServicePort{Name: c.name, Number: 80, AppProtocol: c.protocol})
		d, err := find(t, locate.New(locate.Config{}, w), address.Service, c.url)
		if err != nil || d.Scheme != c.want {
			t.Errorf("%s, appProtocol %q, port %q: error %v, %+v, want %s", c.url, c.protocol, c.name, err, d, c.want)
		}
	}
}
