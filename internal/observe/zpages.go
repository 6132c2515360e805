package observe

import (
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// zGroup is the API group of /flagz and /statusz, KEP-4827 and KEP-4828.
const zGroup = "config.k8s.io"

// maxVerbosityBytes bounds what is read of a request for another verbosity: a number.
const maxVerbosityBytes = 16

const zHeader = `
%s %s
Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.
`

// zPage answers plain text, or a JSON object where the client asks for one by kind and version.
type zPage struct {
	kind   string
	text   func(io.Writer)
	object func(apiVersion string) any
}

func (p zPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	version, ok := p.negotiate(r.Header.Get("Accept"))
	switch {
	case !ok:
		http.Error(w, "only text/plain and application/json;as="+p.kind+";v=v1beta1;g="+zGroup+" are served",
			http.StatusNotAcceptable)
	case version == "":
		plainText(w)
		p.text(w)
	default:
		JSON(func() any { return p.object(zGroup + "/" + version) }).ServeHTTP(w, r)
	}
}

// negotiate returns the version of the object that is wanted, "" for text, or false if nothing acceptable is named.
func (p zPage) negotiate(accept string) (version string, ok bool) {
	if strings.TrimSpace(accept) == "" {
		return "", true
	}
	for clause := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(clause)
		if err != nil {
			continue
		}
		switch media {
		case "*/*", "text/*", "text/plain":
			return "", true
		case "application/json":
			known := params["v"] == "v1beta1" || params["v"] == "v1alpha1"
			if params["as"] == p.kind && params["g"] == zGroup && known {
				return params["v"], true
			}
		}
	}
	return "", false
}

// object is the part that all objects of the API have.
type object struct {
	Kind       string            `json:"kind"`
	APIVersion string            `json:"apiVersion"`
	Metadata   map[string]string `json:"metadata"`
}

func (p Pages) object(kind, apiVersion string) object {
	return object{Kind: kind, APIVersion: apiVersion, Metadata: map[string]string{"name": p.Component}}
}

func (p Pages) flagz() http.Handler {
	return zPage{
		kind: "Flagz",
		text: func(w io.Writer) {
			fmt.Fprintf(w, zHeader, p.Component, "flagz")
			for _, name := range slices.Sorted(maps.Keys(p.Flags)) {
				fmt.Fprintf(w, "%s=%s\n", name, p.Flags[name])
			}
		},
		object: func(apiVersion string) any {
			return struct {
				object
				Flags map[string]string `json:"flags,omitempty"`
			}{p.object("Flagz", apiVersion), p.Flags}
		},
	}
}

func (p Pages) statusz(paths []string) http.Handler {
	return zPage{
		kind: "Statusz",
		text: func(w io.Writer) {
			fmt.Fprintf(w, zHeader, p.Component, "statusz")
			up := int64(time.Since(p.Started).Seconds())
			fmt.Fprintf(w, "\nStarted: %s\nUp: %d hr %02d min %02d sec\nGo version: %s\nBinary version: %s\n\nPaths: %s\n",
				p.Started.Format(time.UnixDate), up/3600, up/60%60, up%60, runtime.Version(), p.Version, strings.Join(paths, " "))
		},
		object: func(apiVersion string) any {
			return struct {
				object
				StartTime     string   `json:"startTime"`
				UptimeSeconds int64    `json:"uptimeSeconds"`
				GoVersion     string   `json:"goVersion"`
				BinaryVersion string   `json:"binaryVersion"`
				Paths         []string `json:"paths"`
			}{
				p.object("Statusz", apiVersion), p.Started.UTC().Format(time.RFC3339),
				int64(time.Since(p.Started).Seconds()), runtime.Version(), p.Version, paths,
			}
		},
	}
}

// verbosity takes a number by PUT, and answers as klog's own page does.
func verbosity(set func(int)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plainText(w)
		if r.Method != http.MethodPut {
			w.WriteHeader(http.StatusNotAcceptable)
			fmt.Fprintln(w, "unsupported http method")
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxVerbosityBytes))
		n := 0
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(body)))
		}
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintln(w, err)
			return
		}
		set(n)
		fmt.Fprintf(w, "successfully set klog.logging.verbosity to %d\n", n)
	})
}
