package kubectlproxy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/kernel/peer"
	"varco.dev/internal/kubectlproxy/cluster"
	"varco.dev/internal/kubectlproxy/guard"
	"varco.dev/internal/kubectlproxy/origin"
	"varco.dev/internal/kubectlproxy/ui"
)

// Defaults of the limits.
const (
	DefaultPort           = 8001
	DefaultHeaderTimeout  = 10 * time.Second // for the header of a request
	DefaultIdleTimeout    = 2 * time.Minute  // of a client's connection without a request
	DefaultBodyTimeout    = httpproxy.DefaultBodyTimeout
	DefaultDrainTimeout   = 10 * time.Second // for streams, once the proxy has been asked to end
	DefaultMaxHeaderBytes = 1 << 20
	DefaultMaxConnections = 4096
)

// ServicesOff is Config.Services for no host names of Services; the other words are origin's modes.
const ServicesOff = "off"

// Config is what to serve, to whom, and where.
type Config struct {
	Address    string // host or IP address, IPv6 with or without brackets
	Port       int    // 0: any free one
	UnixSocket string // path; takes the place of Address and Port

	APIPrefix    string // where the API is served; see api
	StaticDir    string // folder of files to serve; empty: none
	StaticPrefix string // where they are served

	Guard        guard.Config
	RequireToken bool // only who knows the token of this run is served; it stands in the URL that is printed
	SameUser     bool // only processes of this process's user are served
	Clusters     cluster.Config
	Services     string // ServicesOff, or one of origin's modes; empty: origin.ModeAuto
	UI           bool   // the start page at "/"; it is also there when nothing else is
	TLS          TLS

	MetricsAddress string // host:port of /metrics and /healthz; empty: not served

	HeaderTimeout, IdleTimeout, BodyTimeout, DrainTimeout time.Duration // 0: none; the last: at once
	MaxHeaderBytes                                        int
	MaxBodyBytes                                          int64 // of requests for API objects; 0: as many as the API server takes
	MaxConnections                                        int

	Log     *slog.Logger
	Out     io.Writer // gets the line that says where the proxy serves
	Version string
}

// TLS is how the listener speaks TLS; its zero value is not at all.
type TLS struct {
	CertFile, KeyFile string // PEM; read again when they change
	SelfSigned        bool   // a pair made for this run, in place of the files
	ClientCAFile      string // PEM; clients must have a certificate of one of these authorities
}

func (t TLS) wanted() bool { return t.CertFile != "" || t.SelfSigned }

// check completes the prefixes, and names the first flag that cannot be.
func (c *Config) check() error {
	c.APIPrefix, c.StaticPrefix = prefix(c.APIPrefix), prefix(c.StaticPrefix)
	modes := []string{origin.ModeAuto, origin.ModeTunnel, origin.ModeProxy, ServicesOff}
	if c.Services = cmp.Or(c.Services, origin.ModeAuto); !slices.Contains(modes, c.Services) {
		return fmt.Errorf("--services: %q is none of %s", c.Services, strings.Join(modes, ", "))
	}
	if c.Port < 0 || c.Port > 65535 {
		return fmt.Errorf("--port: %d is not a port, 0 to 65535", c.Port)
	}
	if c.HeaderTimeout < 0 || c.IdleTimeout < 0 || c.BodyTimeout < 0 || c.DrainTimeout < 0 {
		return errors.New("--header-timeout, --idle-timeout, --body-timeout and --drain-timeout cannot be negative; 0 is none")
	}
	if c.SameUser && !peer.Tells(c.network()) {
		return fmt.Errorf("--same-user: %s does not tell whose a %s connection is: use --require-token", runtime.GOOS, c.network())
	}
	if err := c.checkPlaces(); err != nil {
		return err
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return errors.New("--tls-cert-file and --tls-private-key-file belong together: give both, or none")
	}
	if c.TLS.SelfSigned && c.TLS.CertFile != "" {
		return errors.New("--tls-self-signed makes a certificate, --tls-cert-file has one: give one of them")
	}
	if c.TLS.ClientCAFile != "" && !c.TLS.wanted() {
		return errors.New("--tls-client-ca-file needs TLS: give --tls-cert-file or --tls-self-signed")
	}
	if c.RequireToken && c.UnixSocket != "" {
		return errors.New("--require-token cannot be used with --unix-socket: the token is shown in a URL, and a socket has none; only you can open it")
	}
	if c.MaxConnections < 1 || c.MaxHeaderBytes < 1 || c.MaxBodyBytes < 0 {
		return errors.New("--max-connections and --max-header-bytes must be at least 1, --max-body-bytes at least 0")
	}
	c.warn()
	return nil
}

// network is that of the listener.
func (c *Config) network() string {
	if c.UnixSocket != "" {
		return "unix"
	}
	return "tcp"
}

// place is a prefix that is taken, and by whom.
type place struct{ by, prefix string }

// checkPlaces refuses prefixes of which one would hide the other.
func (c *Config) checkPlaces() error {
	var taken []place
	if c.Clusters.Contexts != nil {
		taken = append(taken, place{"--contexts", clustersPrefix})
	}
	if c.showsPage() {
		taken = append(taken, place{"the start page", ui.AssetPrefix})
	}
	if err := checkFree("--api-prefix", c.APIPrefix, taken); err != nil || c.StaticDir == "" {
		return err
	}
	taken = append(taken, place{"--api-prefix", c.APIPrefix})
	if c.UI {
		taken = append(taken, place{"the start page", "/"})
	}
	return checkFree("--www-prefix", c.StaticPrefix, taken)
}

func checkFree(flag, prefix string, taken []place) error {
	for _, t := range taken {
		if t.prefix == prefix {
			return fmt.Errorf("%s %s is also that of %s: choose another", flag, prefix, t.by)
		}
	}
	return nil
}

// showsPage says whether "/" is the start page: if asked to, and where nothing else is there.
func (c *Config) showsPage() bool {
	files := c.StaticDir != "" && c.StaticPrefix == "/"
	return c.UI || c.APIPrefix != "/" && !files
}

// prefix begins and ends with a slash, whatever the flag says.
func prefix(p string) string {
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	if !strings.HasSuffix(p, "/") {
		p += "/"
	}
	return p
}

// warn says what kubectl proxy says of its flags.
func (c *Config) warn() {
	if c.StaticDir != "" {
		if info, err := os.Stat(c.StaticDir); err != nil {
			c.Log.Warn("cannot serve files: the folder of --www cannot be read", "error", err)
		} else if !info.IsDir() {
			c.Log.Warn("cannot serve files: --www is not a folder", "www", c.StaticDir)
		}
	}
	switch {
	case c.Guard.Disabled && c.UnixSocket == "":
		c.Log.Warn("requests are not filtered: any page in your browser can use your credentials through this proxy")
	case !c.Guard.Disabled && (c.Guard.RejectPaths == "" || c.Guard.RejectMethods == ""):
		c.Log.Warn("--reject-paths or --reject-methods is empty, so nothing is refused by it: be careful with whom you let connect")
	}
}
