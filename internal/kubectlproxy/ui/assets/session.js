// A session shows one context: the feeds of its Services, EndpointSlices and namespaces, and what they are up to.

import { Feed } from './feed.js';
import { Store } from './store.js';

// NAMESPACE_POLL is how often the namespaces are listed, in ms. They only fill the choice of namespaces, and a watch would
// keep a third connection: browsers open six to a host over HTTP/1.1, so three windows would leave none.
const NAMESPACE_POLL = 60_000;

// Session states, as handed to onState:
//   { kind: 'loading', count } | { kind: 'live' } | { kind: 'paused' }
//   { kind: 'waiting', until, message }  at least one feed failed and will try again
//   { kind: 'choose', message }          all namespaces are refused; the user must choose one
//   { kind: 'refused', message }         the Services are refused
// with endpoints: false where the EndpointSlices are refused.
export class Session {
  #api; #namespace; #onState; #onNamespaces;
  #wide = true; // all namespaces, until that is refused
  #refusal = ''; // what the server said to that
  #states = {};
  #feeds = [];
  #abort = new AbortController();
  #paused = false;
  namespaces = new Set();

  // api is the path of the API, with a slash at its end. namespace is what the user chose, "" for all; it matters only
  // where all are refused.
  constructor({ api, namespace, onState, onChange, onNamespaces }) {
    this.#api = api;
    this.#namespace = namespace;
    this.#onState = onState;
    this.#onNamespaces = onNamespaces;
    this.onChange = onChange;
    this.store = new Store((changed) => onChange(changed));
    this.#makeFeeds();
  }

  start() {
    this.#paused = false;
    this.#abort = new AbortController();
    for (const feed of this.#feeds) feed.run(this.#abort.signal);
    this.#report();
  }

  // stop ends all requests; start goes on from there.
  stop() {
    this.#paused = true;
    this.#abort.abort();
    this.#report();
  }

  close() {
    this.#abort.abort();
    this.store.close();
    this.#onState = this.#onNamespaces = () => {};
  }

  // retry ends the waiting of all feeds.
  retry() {
    for (const feed of this.#feeds) feed.retry();
  }

  // choose takes another namespace. Where all may be listed, choosing is the table's matter alone.
  choose(namespace) {
    if (namespace === this.#namespace) return;
    this.#namespace = namespace;
    if (!this.#wide) this.#restart();
  }

  #restart() {
    this.#abort.abort();
    this.store.close();
    this.store = new Store((changed) => this.onChange(changed));
    this.#makeFeeds();
    if (!this.#paused) this.start();
    this.onChange(new Set());
  }

  #makeFeeds() {
    const scope = this.#wide ? '' : `namespaces/${encodeURIComponent(this.#namespace)}/`;
    this.#states = {};
    this.#feeds = [this.#feed('namespaces', 'api/v1/namespaces', this.#namespaceSink(), NAMESPACE_POLL)];
    if (!this.#wide && !this.#namespace) return;
    this.#feeds.push(
      this.#feed('services', `api/v1/${scope}services`, this.store.services),
      this.#feed('slices', `apis/discovery.k8s.io/v1/${scope}endpointslices`, this.store.slices),
    );
  }

  #feed(name, path, sink, poll) {
    const states = this.#states;
    const onState = (state) => {
      states[name] = state;
      if (states === this.#states) this.#changed(name, state);
    };
    return new Feed({ path: this.#api + path, sink, onState, poll });
  }

  #changed(name, state) {
    if (name === 'services' && state.status === 403 && this.#wide) {
      this.#wide = false;
      this.#refusal = state.message;
      this.#restart();
      return;
    }
    this.#report();
  }

  #report() {
    const { services, slices } = this.#states;
    this.#onState({ ...this.#overall(services, slices), endpoints: slices?.kind !== 'refused' });
  }

  #overall(services, slices) {
    if (this.#paused) return { kind: 'paused' };
    if (!this.#wide && !this.#namespace) return { kind: 'choose', message: this.#refusal };
    if (services?.kind === 'refused') return services;
    const waiting = [services, slices].filter((s) => s?.kind === 'waiting').sort((a, b) => a.until - b.until);
    if (waiting.length > 0) return waiting[0];
    if (services?.kind !== 'live') return services ?? { kind: 'loading', count: 0 };
    return slices && slices.kind !== 'refused' ? slices : services;
  }

  // allNamespaces says whether the Services of all namespaces are here.
  get allNamespaces() {
    return this.#wide;
  }

  #namespaceSink() {
    let next = new Set();
    return {
      begin: () => { next = new Set(); },
      add: (items) => items.forEach((o) => next.add(o.metadata.name)),
      end: () => {
        this.namespaces = next;
        this.#onNamespaces();
      },
    };
  }
}
