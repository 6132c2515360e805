// The page: wires the session that knows the Services, the table that shows them, and what the user asks for.

import { Connection } from './connection.js';
import { el, id, setOptions, setText } from './dom.js';
import { bindKeys } from './keys.js';
import { isLoopback, linkOf } from './links.js';
import * as url from './location.js';
import { Panel } from './panel.js';
import { Session } from './session.js';
import { Table } from './table.js';

// ROWS is how many rows of ports the table shows, and how many more each "Show more" adds. Browsers lay out a few hundred
// rows at once without a pause; 5,000 Services have tens of thousands.
const ROWS = 300;

// REST is how long, in ms, a page that nobody sees keeps its connections; see NAMESPACE_POLL for why it lets them go.
const REST = 30_000;

// root is the path that the page came from; this module is two folders below it.
const root = new URL('../../', import.meta.url).pathname;

class App {
  #wanted = url.read();
  #limit = ROWS;
  #state = { kind: 'loading', count: 0 };
  #counted = '';
  #table; #connection; #panel;
  #info; #session; #context; #rest = 0; #say = 0;

  constructor(info) {
    this.#info = info;
    this.#table = new Table(id('services'), {
      link: (service, port) => this.#link(service, port),
      readiness: (service, port) => this.#readiness(service, port),
    });
    this.#connection = new Connection({ retry: () => this.#session.retry(), say: (text) => this.#announce(text) });
    this.#panel = new Panel({
      choose: (ns) => this.#want({ ns }),
      clear: () => this.#want({ q: '', ns: this.#session.allNamespaces ? '' : this.#wanted.ns }),
    });
    this.#bind();
    describe(info);
    this.#open();
    this.#visibility(); // a tab can be opened behind others
  }

  #bind() {
    id('search').addEventListener('input', () => this.#want({ q: id('search').value }));
    id('namespace').addEventListener('change', () => this.#want({ ns: id('namespace').value }));
    id('context').addEventListener('change', () => this.#want({ context: id('context').value, ns: '' }));
    id('more').addEventListener('click', () => this.#more());
    bindKeys(this.#table, () => this.#want({ q: '' }));
    url.onMove((wanted) => this.#want(wanted));
    document.addEventListener('visibilitychange', () => this.#visibility());
    addEventListener('online', () => this.#session.retry());
  }

  // open starts a session for the context that is wanted, and ends the one before.
  #open() {
    this.#session?.close();
    this.#context = chosenContext(this.#info.contexts, this.#wanted.context);
    const api = this.#context ? `clusters/${encodeURIComponent(this.#context.name)}/` : this.#info.apiPrefix.slice(1);
    this.#limit = ROWS;
    document.title = `${this.#context?.name || this.#info.cluster || 'Services'} · Varco`;
    this.#session = new Session({
      api: root + api,
      namespace: this.#wanted.ns,
      onState: (state) => this.#stateChanged(state),
      onChange: (changed) => this.#show(changed),
      onNamespaces: () => this.#showNamespaces(),
    });
    this.#session.start();
    this.#show(null);
  }

  // want takes what the user asks for now, and brings URL, fields and table in step.
  #want(change) {
    const before = this.#wanted;
    this.#wanted = { ...before, ...change };
    url.write(this.#wanted);
    this.#limit = ROWS;
    if (this.#wanted.context !== before.context) return this.#open();
    this.#session.choose(this.#wanted.ns);
    this.#show(null);
    this.#announce(this.#counted);
  }

  #stateChanged(state) {
    const endpoints = this.#state.endpoints !== state.endpoints;
    this.#state = state;
    this.#connection.show(state);
    // The counts of endpoints turn into "not permitted", or back, in rows that did not change themselves.
    if (this.#session) this.#show(endpoints ? null : new Set());
  }

  #show(changed) {
    const all = this.#session.store.sorted();
    const matches = all.filter(matcher(this.#wanted));
    const shown = firstRows(matches, this.#limit);
    const counts = countByNamespace(matches);
    this.#table.show(shown, counts, changed);
    id('services').hidden = shown.length === 0;
    this.#panel.show(this.#state, all.length, matches.length, [this.#wanted.q, this.#wanted.ns].filter(Boolean).join(' '));
    this.#showCount(all.length, matches.length, shown.length, counts.size);
    this.#showNamespaces();
    if (id('search').value !== this.#wanted.q) id('search').value = this.#wanted.q;
  }

  #showCount(all, matches, shown, namespaces) {
    const number = (n) => n.toLocaleString('en');
    const services = all === 1 ? 'Service' : 'Services';
    const within = namespaces === 1 ? ' in 1 namespace' : ` in ${number(namespaces)} namespaces`;
    this.#counted = `${matches === all ? '' : `${number(matches)} of `}${number(all)} ${services}${matches ? within : ''}`;
    setText(id('count'), all > 0 ? this.#counted : '');
    id('more').hidden = shown === matches;
    setText(id('more'), `Show more (${number(matches - shown)} not shown)`);
  }

  #more() {
    const last = [...document.querySelectorAll('tr[data-key]')].at(-1);
    this.#limit += ROWS;
    this.#show(new Set());
    // Without this the focus would stay below everything that has come.
    this.#table.focusKey(last.dataset.key);
    this.#table.move(1);
  }

  #showNamespaces() {
    const names = new Set(this.#session.namespaces);
    for (const s of this.#session.store.sorted()) names.add(s.namespace);
    if (this.#wanted.ns) names.add(this.#wanted.ns);
    const options = [...names].sort().map((name) => ({ value: name, text: name }));
    const all = this.#session.allNamespaces ? 'All namespaces' : 'Choose a namespace';
    setOptions(id('namespace'), [{ value: '', text: all }, ...options], this.#wanted.ns);
    if (id('namespaces').childElementCount !== options.length) {
      id('namespaces').replaceChildren(...options.map((o) => new Option(o.text, o.value)));
    }
    if (this.#context) {
      const contexts = this.#info.contexts.map((c) => ({ value: c.name, text: c.name }));
      setOptions(id('context'), contexts, this.#context.name);
    }
  }

  #link(service, port) {
    const domain = this.#info.originDomain;
    if (!domain || !isLoopback(location.hostname)) return { why: '' }; // the hint under the header says why
    const { protocol, port: at } = location;
    return linkOf(service, port, { protocol, port: at, domain, token: this.#info.token, label: this.#context?.label });
  }

  #readiness(service, port) {
    if (service.type === 'ExternalName') return null;
    return this.#state.endpoints === false ? undefined : this.#session.store.readiness(service, port);
  }

  #visibility() {
    clearTimeout(this.#rest);
    if (document.hidden) this.#rest = setTimeout(() => this.#session.stop(), REST);
    else if (this.#state.kind === 'paused') this.#session.start();
  }

  // announce reads text aloud once the user has stopped typing.
  #announce(text) {
    clearTimeout(this.#say);
    this.#say = setTimeout(() => setText(id('announce'), text), 500);
  }
}

function matcher({ q, ns }) {
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  return (s) => (!ns || s.namespace === ns) && words.every((word) => s.text.includes(word));
}

// firstRows returns Services until they have limit rows; a Service is shown with all of its ports.
function firstRows(services, limit) {
  let rows = 0;
  const end = services.findIndex((s) => (rows += Math.max(1, s.ports.length)) > limit);
  return end < 0 ? services : services.slice(0, Math.max(1, end));
}

function countByNamespace(services) {
  const counts = new Map();
  for (const s of services) counts.set(s.namespace, (counts.get(s.namespace) ?? 0) + 1);
  return counts;
}

function chosenContext(contexts, name) {
  if (!contexts?.length) return null;
  return contexts.find((c) => c.name === name) ?? contexts.find((c) => c.current) ?? contexts[0];
}

// describe shows what does not change while the page is open.
function describe(info) {
  id('context-field').hidden = !info.contexts?.length;
  setText(id('cluster'), info.contexts?.length ? '' : info.cluster);
  setText(id('version'), `Varco ${info.version}`);
  const refused = [...(info.refused ?? []), ...(info.denied ?? [])];
  id('rules').replaceChildren(
    ...(info.readOnly ? [el('li', 'badge', 'read-only')] : []),
    ...(refused.length ? [el('li', '', `refused: ${refused.join(', ')}`)] : []),
  );
  const hint = !info.originDomain ? 'This proxy opens no Services; its page shows them without links.'
    : isLoopback(location.hostname) ? ''
      : `Links to Services work on the machine that the proxy runs on: open this page as ${location.protocol}//localhost${location.port && `:${location.port}`}${root}`;
  setText(id('hint'), hint);
  id('hint').hidden = !hint;
}

async function start() {
  const answer = await fetch(new URL('info.json', import.meta.url), { cache: 'no-store' });
  if (!answer.ok) throw new Error(`the proxy's description: ${answer.status}`);
  new App(await answer.json());
}

start().catch(() => {
  id('connection').dataset.kind = 'refused';
  setText(id('connection-text'), 'the proxy does not answer; reload to try again');
});
