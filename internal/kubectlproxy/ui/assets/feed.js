// A feed keeps a sink in step with one list of the API, as client-go's reflector does: list, watch from there, watch on
// after the server ended the stream, list again only when the server has forgotten where we were (410) or failed.

import { list, watch, ApiError } from './api.js';

// FIRST_WAIT and LONGEST_WAIT bound the exponential backoff after failures, in ms. Each wait is shortened by up to half
// at random, so that the tabs of many users do not come back at once.
const FIRST_WAIT = 1000;
const LONGEST_WAIT = 30_000;

// REFUSED_WAIT is for the next try after a refusal, in ms: permissions change rarely, and the user who had them changed
// has a button.
const REFUSED_WAIT = 300_000;

// SHORT is the life of a stream, in ms, below which its end counts as a failure: a server that ends every stream at once
// must not be asked without a pause.
const SHORT = 1000;

// Feed states, as handed to onState:
//   { kind: 'loading', count }           the list is coming
//   { kind: 'live' }                     what the sink holds is the present
//   { kind: 'waiting', until, message }  failed; next try at until, in ms as Date.now
//   { kind: 'refused', status, message } 401 or 403
export class Feed {
  #path; #sink; #onState; #poll;
  #version = '';
  #failures = 0;
  #wake = () => {};

  // The sink's begin, add(items) and end take a list; its change(type, object) takes an event. With poll, in ms, the
  // list is repeated that often instead of watched.
  constructor({ path, sink, onState, poll = 0 }) {
    this.#path = path;
    this.#sink = sink;
    this.#onState = onState;
    this.#poll = poll;
  }

  // run works until the signal is aborted. It can run again after that, and goes on where it was.
  async run(signal) {
    while (!signal.aborted) {
      try {
        if (!this.#version) await this.#list(signal);
        if (this.#poll) await this.#again(signal);
        else await this.#follow(signal);
      } catch (err) {
        if (!signal.aborted) await this.#recover(err, signal);
      }
    }
  }

  // retry ends a wait at once.
  retry() {
    this.#wake();
  }

  async #list(signal) {
    let count = 0;
    this.#onState({ kind: 'loading', count });
    this.#sink.begin();
    this.#version = await list(this.#path, (items) => {
      if (signal.aborted) return;
      count += items.length;
      this.#sink.add(items);
      this.#onState({ kind: 'loading', count });
    }, signal);
    this.#sink.end();
  }

  async #again(signal) {
    this.#version = '';
    this.#failures = 0;
    this.#onState({ kind: 'live' });
    await this.#sleep(this.#poll, signal);
  }

  async #follow(signal) {
    const began = Date.now();
    let events = 0;
    const onOpen = () => this.#onState({ kind: 'live' });
    const onEvent = ({ type, object }) => {
      if (signal.aborted) return;
      events++;
      this.#version = object.metadata.resourceVersion;
      if (type !== 'BOOKMARK') this.#sink.change(type, object);
    };
    try {
      await watch(this.#path, this.#version, { onOpen, onEvent }, signal);
    } finally {
      // A stream that lived is no sign that the next one will not, however it ended.
      if (Date.now() - began >= SHORT) this.#failures = 0;
    }
    if (events === 0 && Date.now() - began < SHORT) throw new ApiError(0, 'the watch ended at once');
    this.#failures = 0;
  }

  async #recover(err, signal) {
    this.#failures++;
    // A request that is wrong stays wrong from there; a server in trouble (429, 5xx) is not asked for everything again.
    if (err.status >= 400 && err.status < 500 && err.status !== 429) this.#version = '';
    // The server's memory is short: that it forgot is no failure unless it happens again.
    if (err.status === 410 && this.#failures === 1) return;
    if (err.status === 401 || err.status === 403) {
      this.#onState({ kind: 'refused', status: err.status, message: err.message });
      await this.#sleep(REFUSED_WAIT, signal);
      return;
    }
    const longest = Math.min(FIRST_WAIT * 2 ** (this.#failures - 1), LONGEST_WAIT);
    const wait = longest * (1 - Math.random() / 2);
    // What fetch throws when a stream breaks says nothing that a user could use.
    const message = err instanceof ApiError ? err.message : 'the connection was cut';
    this.#onState({ kind: 'waiting', until: Date.now() + wait, message });
    await this.#sleep(wait, signal);
  }

  #sleep(ms, signal) {
    if (signal.aborted) return Promise.resolve();
    return new Promise((done) => {
      const timer = setTimeout(() => this.#wake(), ms);
      this.#wake = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', this.#wake);
        done();
      };
      signal.addEventListener('abort', this.#wake);
    });
  }
}
