// Package rewrite moves answers below a path: their links, redirects and cookies, so that a client who reached a target
// through a proxy stays there. It is what k8s.io/apimachinery/pkg/util/proxy.Transport does for kube-apiserver, with the same
// rule for the same URLs, but page after page in bounded memory, and while it is still being sent.
//
// # Which URLs
//
// Those of the target: paths that begin with a slash, at no host, at the target's, or at the one that the client asked. They
// get the prefix before their path unless they have it, and Page.Scheme and Page.Host. Relative URLs, other hosts, and schemes
// other than http and https stay as they are.
//
// # Where
//
//   - Location, whatever the status; one that is no URL is an error. Content-Location, Refresh, Link, SourceMap, and
//     Service-Worker-Allowed, which would otherwise give a target the whole host's pages, and which ends below the prefix
//     however it is written.
//   - Set-Cookie: Path. Domain goes if it is the target or whom the client asked; other domains stay, and so does all else.
//     A cookie without Path belongs to the folder of the request, which is below the prefix, but for a request to the prefix
//     itself: then it gets one. A cookie named __Host-… must have Path=/, or a browser drops it (RFC 6265bis, 4.1.3.2). It stays
//     as it is: it works, and goes to all targets of this host, as in the original all cookies do.
//   - HTML (text/html in any case), the 35 pairs of element and attribute that Kubernetes has, <base href> among them; and
//     srcset, imagesrcset, ping, track src, background of tables and their cells, href and xlink:href of SVG, and
//     <meta http-equiv=refresh>.
//
// Untouched stay scripts, style sheets and style attributes, import maps, srcdoc, what is in <noscript> (text to the
// tokenizer of the original, and to browsers with scripts), Content-Security-Policy, and all requests: Referer, Origin and
// Destination say what the client sees, and X-Forwarded-Prefix tells a target how to make sense of them.
//
// # Which pages
//
// Not parts (206, multipart), answers without a body (1xx, 204, 304, HEAD), pages without a media type or in UTF-16, UTF-32, UTF-7
// or ISO 2022, by their media type or their first byte, and those whose encoding is unknown or of several. HEAD has the header
// that GET would have. Cache-Control: no-transform changes nothing, as in the original: a page whose links lead nowhere is of
// no use.
//
// Pages are decoded and encoded again as they were: gzip, deflate with and without the format of zlib, br, zstd. What the
// target has flushed is flushed. A page that does not end as its encoding wants ends with an error here as well.
//
// Once a body is changed its ETag is weak, and Content-Length, Accept-Ranges and the digests are gone, those in the trailer too.
// The weak ETag comes back in If-None-Match, matches at the target, and the 304 has it again. If-Range and If-Match do not
// match: whoever resumes a download would join bytes of two pages. A client that asks for a range by date alone, or blindly, can
// still do so.
//
// # Differences from the original
//
// TestDifferences has each with what the original does and what is done here. In short:
//
//   - Nothing is written anew but values that have changed: no tag, no other URL, no bytes of other character sets; what is
//     escaped stays escaped, slashes above all, and empty segments stay.
//   - Segments .. end at the target's root; in the original they climb over the prefix.
//   - The prefix is recognised only as whole segments. The target's root needs no slash, hosts have no case, and :80 and :443 may be
//     left out.
//   - Schemes such as javascript: are not paths of the target, though a slash follows. User and password do not move to another
//     host. A Scheme without a Host is ignored.
//   - After a <base> at another host, URLs without a host are that host's.
//   - In HTML, space around a URL is none of it, and a URL may have escapes that package url refuses.
//   - A page beside a Location is moved too.
//   - A page that ends within a tag ends there.
//   - URLs longer than 64 KiB in pages stay, and lists of URLs that would become longer than 128 KiB. The original holds all of
//     the page, without a limit.
//   - In SVG and MathML <title/>, <style/> and <script/> end at once, as in browsers; the original takes what follows for their text.
//   - br and zstd, which the original passes on with an empty body; parts and HEAD, which it breaks; ETag and digests, which it
//     keeps.
package rewrite
