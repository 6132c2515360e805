// The address of a Service's port: a host name of its own, so that the browser keeps each Service's cookies, storage and
// scripts away from every other, and absolute paths in its pages work.

// label is RFC 1123's. What the API server accepts as a name matches; anything else must not get into a URL.
const label = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

// LONGEST_HOST is the limit of DNS for a name in text, RFC 1035 section 3.1 without length octets and root.
const LONGEST_HOST = 253;

// isLoopback says whether a host name of location is one that never leaves this machine. Only then do names below
// localhost lead to the proxy that the page came from (RFC 6761 section 6.3).
export function isLoopback(hostname) {
  return hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]' ||
    /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

// linkOf returns { href, host } for a port, or { why } in words for people if it has no link. place says where the page
// is: location's protocol and port, and from Info the domain, token and the context's label.
export function linkOf(service, port, place) {
  if (service.type === 'ExternalName') return { why: 'leads out of the cluster' };
  if (port.protocol !== 'TCP') return { why: `browsers do not speak ${port.protocol}` };
  const parts = [portLabel(port), service.name, service.namespace];
  if (!parts.every((part) => label.test(part))) return { why: 'its name is no host name' };
  const host = [...parts, 'svc', ...(place.label ? [place.label] : []), place.domain].join('.');
  if (host.length > LONGEST_HOST) return { why: 'its host name would be too long' };
  const at = place.port ? `:${place.port}` : '';
  const token = place.token ? `?varco-token=${encodeURIComponent(place.token)}` : '';
  return { host, href: `${place.protocol}//${host}${at}/${token}` };
}

// portLabel is the port's name, which is unique within the Service, where numbers are not: DNS has 53 twice. A name that
// is all digits could be taken for a number, and then the number is right.
function portLabel(port) {
  return label.test(port.name) && !/^\d+$/.test(port.name) ? port.name : String(port.port);
}
