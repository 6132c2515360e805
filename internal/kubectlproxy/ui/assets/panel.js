// The panel stands where the table has nothing to show, and says why and what to do.

import { el, id } from './dom.js';

export class Panel {
  #shown = '';
  #choose; #clear;

  // choose(namespace) and clear() are what the panel's buttons do.
  constructor({ choose, clear }) {
    this.#choose = choose;
    this.#clear = clear;
  }

  // show takes the session's state, how many Services there are and how many match, and what was searched for.
  show(state, total, matches, search) {
    const content = this.#content(state, total, matches, search);
    const key = content ? `${content.title}\n${content.text}` : '';
    if (key === this.#shown) return;
    this.#shown = key;
    const panel = id('panel');
    panel.hidden = !content;
    panel.dataset.kind = content?.kind ?? '';
    panel.replaceChildren(...(content ? [el('h2', '', content.title), el('p', '', content.text), ...content.more ?? []] : []));
  }

  #content(state, total, matches, search) {
    if (state.kind === 'choose') {
      return {
        kind: 'refused', title: 'You may not list the Services of all namespaces',
        text: `Name one that you may see. The answer was: ${state.message}`, more: [this.#chooser()],
      };
    }
    if (state.kind === 'refused') {
      return {
        kind: 'refused', title: state.status === 401 ? 'Not signed in' : 'You may not list these Services',
        text: state.message, more: state.status === 403 ? [this.#chooser()] : [],
      };
    }
    if (matches > 0) return null;
    if (total > 0) {
      return { kind: 'empty', title: 'Nothing matches', text: `None of the Services has all of “${search}”.`, more: [this.#clearer()] };
    }
    if (state.kind === 'waiting') {
      return {
        kind: 'error', title: 'The cluster does not answer',
        text: `This page keeps trying. The last answer was: ${state.message}`,
      };
    }
    return quiet[state.kind];
  }

  #clearer() {
    const button = el('button', '', 'Show all');
    button.type = 'button';
    button.addEventListener('click', this.#clear);
    return button;
  }

  #chooser() {
    const input = el('input');
    input.id = 'choice';
    input.setAttribute('list', 'namespaces');
    input.autocomplete = 'off';
    input.spellcheck = false;
    input.required = true;
    const label = el('label', '', 'Namespace');
    label.htmlFor = input.id;
    const form = el('form', 'chooser', label, input, el('button', '', 'Show'));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#choose(input.value.trim());
    });
    return form;
  }
}

// quiet are the panels while there is no Service at all.
const quiet = {
  loading: { kind: 'loading', title: 'Loading', text: 'Asking the API server for its Services.' },
  live: { kind: 'empty', title: 'No Services yet', text: 'This page is live: the first one shows as soon as it exists.' },
  paused: { kind: 'empty', title: 'Paused', text: 'This page rests while nobody looks at it.' },
};
