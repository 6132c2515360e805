// The state of the connection, in the header: a dot and words, a countdown, and a button that ends it.

import { id, setText } from './dom.js';

// TICK is how often the countdown is looked at, in ms.
const TICK = 250;

export class Connection {
  #state = { kind: 'loading', count: 0 };
  #timer = 0;
  #spokenKind = '';
  #say;

  // say reads a text aloud; it hears of a new kind of state, not of every second of a countdown.
  constructor({ retry, say }) {
    this.#say = say;
    id('retry').addEventListener('click', retry);
  }

  show(state) {
    this.#state = state;
    id('connection').dataset.kind = state.kind;
    id('connection').title = state.message ?? '';
    id('retry').hidden = state.kind !== 'waiting' && state.kind !== 'refused';
    clearInterval(this.#timer);
    if (state.kind === 'waiting') this.#timer = setInterval(() => this.#write(), TICK);
    this.#write();
    if (state.kind === this.#spokenKind) return;
    this.#spokenKind = state.kind;
    if (state.kind !== 'loading') this.#say(words(state));
  }

  #write() {
    setText(id('connection-text'), words(this.#state));
  }
}

function words({ kind, count, until }) {
  switch (kind) {
    case 'live': return 'live';
    case 'paused': return 'paused';
    case 'waiting': return `reconnecting in ${Math.max(1, Math.ceil((until - Date.now()) / 1000))} s`;
    case 'loading': return count ? `loading, ${count.toLocaleString('en')} so far` : 'connecting';
    default: return 'no permission';
  }
}
