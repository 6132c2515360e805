// Lists and watches of the Kubernetes API, over fetch. What is here knows HTTP and the API's framing, and keeps no state.

// PAGE is how many objects one answer of a list holds; client-go's default.
const PAGE = 500;

// MAX_PAGES bounds a list at 100,000 objects. A page of a browser is no place for more; a namespace's list is shorter.
const MAX_PAGES = 200;

// MAX_EVENT bounds one event of a watch, in UTF-16 units. etcd stores objects of at most 1.5 MiB.
const MAX_EVENT = 8 << 20;

// WATCH_SECONDS is when the API server ends a watch by itself. It bounds how long a connection that died without a word
// can go unnoticed; following on costs one small request.
const WATCH_SECONDS = 300;

// ApiError is an answer that is not the one that was asked for. status is the HTTP code, 0 if there was no answer.
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// list hands every page of the list at path to onItems, and returns the version to watch from.
export async function list(path, onItems, signal) {
  let token = '';
  for (let page = 0; page < MAX_PAGES; page++) {
    const query = new URLSearchParams({ limit: PAGE });
    if (token) query.set('continue', token);
    const answer = await get(`${path}?${query}`, signal);
    const body = await answer.json();
    onItems(body.items ?? []);
    token = body.metadata?.continue ?? '';
    if (!token) return body.metadata?.resourceVersion ?? '';
  }
  throw new ApiError(413, `more than ${PAGE * MAX_PAGES} objects; choose a namespace`);
}

// watch follows path from version on until the server ends the stream. It calls onOpen once the server agreed, and
// onEvent for each event, bookmarks included. An ERROR event is thrown as 410, whatever it says: the place in the stream
// is lost, and only a new list finds it again.
export async function watch(path, version, { onOpen, onEvent }, signal) {
  const query = new URLSearchParams({
    watch: 'true', resourceVersion: version, allowWatchBookmarks: 'true', timeoutSeconds: WATCH_SECONDS,
  });
  const answer = await get(`${path}?${query}`, signal);
  onOpen();
  for await (const line of lines(answer.body)) {
    const event = JSON.parse(line);
    if (event.type === 'ERROR') throw new ApiError(410, event.object?.message ?? 'the watch failed');
    onEvent(event);
  }
}

async function get(url, signal) {
  let answer;
  try {
    answer = await fetch(url, { signal, headers: { Accept: 'application/json' }, cache: 'no-store', redirect: 'error' });
  } catch (err) {
    if (signal.aborted) throw err;
    throw new ApiError(0, 'the proxy does not answer');
  }
  if (!answer.ok) throw new ApiError(answer.status, await explanation(answer));
  return answer;
}

// explanation is the message of the Status that the API server and the proxy send with an error.
async function explanation(answer) {
  const fallback = `the answer was ${answer.status} ${answer.statusText}`.trim();
  try {
    return (await answer.json()).message || fallback;
  } catch {
    return fallback;
  }
}

// lines splits a stream of bytes at line feeds. Only whole lines count: the rest of a stream that was cut is dropped.
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split('\n');
      rest = parts.pop();
      if (rest.length > MAX_EVENT) throw new ApiError(0, 'an event of the watch is too long');
      for (const part of parts) if (part) yield part;
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream may have failed already, which is no news
  }
}
