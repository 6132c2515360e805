// What the user looks for is in the fragment of the URL, so that it survives a reload and can be passed on: #q=web&ns=shop

// read returns { q, ns, context }, each "" where it is not given.
export function read() {
  const params = new URLSearchParams(location.hash.slice(1));
  return { q: params.get('q') ?? '', ns: params.get('ns') ?? '', context: params.get('context') ?? '' };
}

// write keeps the state without a new entry in the history: one for each letter typed would make Back useless.
export function write(state) {
  const params = new URLSearchParams(Object.entries(state).filter(([, value]) => value));
  const hash = params.size > 0 ? `#${params}` : '';
  history.replaceState(null, '', location.pathname + location.search + hash);
}

// onMove calls f when the fragment was changed by hand or by a link.
export function onMove(f) {
  addEventListener('hashchange', () => f(read()));
}
