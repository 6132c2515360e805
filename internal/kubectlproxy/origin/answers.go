package origin

import (
	"net/http"
	"net/url"
	"strings"
)

// localize makes what an app says about its own name true here.
func (v *visit) localize(resp *http.Response) error {
	localizeCookies(resp.Header)
	resp.Header.Del("Clear-Site-Data") // browsers clear the cookies of all hosts below svc.localhost
	if at, ok := resp.Header["Location"]; ok && len(at) == 1 {
		resp.Header["Location"] = []string{v.localURL(at[0])}
	}
	return nil
}

// localizeCookies takes the Domain off cookies. A cookie for svc.localhost would go to all Services, and one of them could
// replace another's; one for the app's real name would be refused by the browser. Even one for the host's own name would go
// to names below it: that of pod b is b.shop.pod.localhost, and 80.a.b.shop.pod.localhost is pod a.b. Without a Domain a
// cookie is the host's alone (RFC 6265, section 4.1.2.3).
func localizeCookies(h http.Header) {
	lines := h["Set-Cookie"]
	for i, line := range lines {
		lines[i] = withoutDomain(line)
	}
}

func withoutDomain(cookie string) string {
	if !strings.Contains(strings.ToLower(cookie), "domain") {
		return cookie
	}
	parts := strings.Split(cookie, ";")
	kept := parts[:1]
	for _, part := range parts[1:] {
		name, _, _ := strings.Cut(part, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "Domain") {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ";")
}

// clusterDomain is the suffix of names in the cluster's DNS; a kubelet's --cluster-domain may say otherwise, and then
// only short names are recognized.
const clusterDomain = "cluster.local"

// localURL changes a URL that names a Service as pods know it into the one of its origin here. All else stays.
func (v *visit) localURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "" {
		return text
	}
	to, ok := v.named(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")))
	if !ok {
		return text
	}
	to.Port = u.Port()
	if to.Port == "" {
		to.Port = map[string]string{"https": "443"}[u.Scheme]
	}
	if to.Port == "" {
		to.Port = "80"
	}
	u.Scheme, u.Host = v.scheme(), to.Host()+v.listenPort()
	if same := v.at; !same.Pod && to.Name == same.Name && to.Namespace == same.Namespace && to.Port == v.route.servicePort {
		u.Host = v.r.Host
	}
	return u.String()
}

// named reads a name of the cluster's DNS; the short forms only if they mean the app itself.
func (v *visit) named(host string) (Origin, bool) {
	if !v.at.Pod && (host == v.at.Name || host == v.at.Name+"."+v.at.Namespace) {
		return Origin{Name: v.at.Name, Namespace: v.at.Namespace, Label: v.at.Label}, true
	}
	labels := strings.Split(strings.TrimSuffix(host, "."+clusterDomain), ".")
	if len(labels) != 3 || labels[2] != serviceKind {
		return Origin{}, false
	}
	return Origin{Name: labels[0], Namespace: labels[1], Label: v.at.Label}, true
}

// listenPort is ":8001", or nothing where the client did not need to say it.
func (v *visit) listenPort() string {
	if i := strings.LastIndexByte(v.r.Host, ':'); i >= 0 {
		return v.r.Host[i:]
	}
	return ""
}
