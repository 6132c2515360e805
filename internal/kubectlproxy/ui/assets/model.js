// What the page keeps of API objects. Everything in them is text from strangers: it is shown as text, never as markup.

// keyOf names an object within its kind.
export const keyOf = (o) => `${o.metadata.namespace}/${o.metadata.name}`;

// portKey says which port of a Service a port of an EndpointSlice belongs to: names match, and an unnamed port has the
// empty name (https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/).
const portKey = (p) => `${p.name ?? ''}/${p.protocol ?? 'TCP'}`;

// toService keeps what the table shows. text is what a search looks into, in lower case.
export function toService(o) {
  const { metadata, spec = {}, status = {} } = o;
  const service = {
    key: keyOf(o),
    namespace: metadata.namespace,
    name: metadata.name,
    type: spec.type ?? 'ClusterIP',
    clusterIPs: spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : []),
    external: externalOf(spec, status),
    ports: (spec.ports ?? []).map(toPort),
  };
  service.text = [service.name, service.namespace, service.type,
    ...service.ports.flatMap((p) => [p.port, p.name, p.protocol, p.appProtocol])].join('\n').toLowerCase();
  return service;
}

function toPort(p) {
  return {
    key: portKey(p),
    name: p.name ?? '',
    port: p.port,
    protocol: p.protocol ?? 'TCP',
    appProtocol: p.appProtocol ?? '',
  };
}

// externalOf is every way in from outside that has an address, each once.
function externalOf(spec, status) {
  const balancer = (status.loadBalancer?.ingress ?? []).map((i) => i.ip ?? i.hostname);
  const external = spec.externalName && spec.type === 'ExternalName' ? [spec.externalName] : [];
  return [...new Set([...balancer, ...(spec.externalIPs ?? []), ...external])].filter(Boolean);
}

// toSlice keeps which endpoints are ready, and for which ports. A slice is of one address family: an endpoint of a
// Service of two families stands in two slices, so the pod behind it is its identity, if there is one.
export function toSlice(o) {
  return {
    key: keyOf(o),
    service: `${o.metadata.namespace}/${o.metadata.labels?.['kubernetes.io/service-name'] ?? ''}`,
    ports: new Set((o.ports ?? []).map(portKey)),
    endpoints: (o.endpoints ?? []).map((e) => ({
      id: e.targetRef?.uid ?? e.targetRef?.name ?? e.addresses?.[0] ?? '',
      ready: e.conditions?.ready ?? true, // the API: unknown is to be taken as ready
    })),
  };
}

// readiness counts the endpoints of one port over all slices of its Service.
export function readiness(port, slices) {
  const seen = new Map();
  for (const slice of slices) {
    if (!slice.ports.has(port.key)) continue;
    for (const e of slice.endpoints) seen.set(e.id, e.ready || seen.get(e.id) === true);
  }
  let ready = 0;
  for (const is of seen.values()) if (is) ready++;
  return { ready, total: seen.size };
}
