// The table of Services, grouped by namespace. It keeps the rows that it made and touches only what changed.

import { el } from './dom.js';
import { makeRows, shapeOf } from './rows.js';

const COLUMNS = 8;

export class Table {
  #table; #link; #readiness;
  #groups = new Map(); // namespace -> { body, head, number }
  #made = new Map(); // key of a Service -> what makeRows returned

  // link(service, port) is linkOf, and readiness(service, port) the counts, null or undefined; see showReadiness.
  constructor(table, { link, readiness }) {
    this.#table = table;
    this.#link = link;
    this.#readiness = readiness;
  }

  // show makes the table hold these Services, in this order, of which those in changed have news; null means all.
  show(services, counts, changed) {
    const focus = document.activeElement?.closest('tr[data-key]')?.dataset.key;
    const wanted = new Set(services.map((s) => s.key));
    for (const [key, made] of this.#made) if (!wanted.has(key)) this.#remove(key, made);
    for (const service of services) if (!changed || changed.has(service.key) || !this.#made.has(service.key)) this.#make(service);
    this.#arrange(services, counts);
    if (focus && !document.activeElement?.closest('tr[data-key]')) this.focusKey(focus);
  }

  #remove(key, made) {
    made.rows.forEach((row) => row.remove());
    this.#made.delete(key);
  }

  #make(service) {
    const link = (port) => this.#link(service, port);
    let made = this.#made.get(service.key);
    if (!made || made.shape !== shapeOf(service, link)) {
      made?.rows.forEach((row) => row.remove());
      made = makeRows(service, link);
      this.#made.set(service.key, made);
    }
    made.update((port) => this.#readiness(service, port));
  }

  // arrange puts every row in its place. Rows that are there already are not moved: moving takes the focus away.
  #arrange(services, counts) {
    let at = this.#table.tBodies[0] ?? null;
    const used = new Set();
    for (let i = 0; i < services.length;) {
      const namespace = services[i].namespace;
      const group = this.#group(namespace, counts.get(namespace));
      used.add(namespace);
      if (group.body === at) at = at.nextElementSibling;
      else this.#table.insertBefore(group.body, at);
      let next = group.head.nextElementSibling;
      for (; i < services.length && services[i].namespace === namespace; i++) {
        for (const row of this.#made.get(services[i].key).rows) {
          if (row === next) next = next.nextElementSibling;
          else group.body.insertBefore(row, next);
        }
      }
    }
    for (const [namespace, group] of this.#groups) {
      if (used.has(namespace)) continue;
      group.body.remove();
      this.#groups.delete(namespace);
    }
  }

  #group(namespace, count) {
    let group = this.#groups.get(namespace);
    if (!group) {
      const number = el('span', 'quiet');
      const th = el('th', '', el('span', 'namespace', namespace), ' ', number);
      th.colSpan = COLUMNS;
      th.scope = 'rowgroup';
      const head = el('tr', 'group', th);
      head.setAttribute('role', 'row');
      th.setAttribute('role', 'rowheader');
      const body = el('tbody', '', head);
      body.setAttribute('role', 'rowgroup');
      group = { body, head, number };
      this.#groups.set(namespace, group);
    }
    group.number.textContent = count === 1 ? '1 Service' : `${count} Services`;
    return group;
  }

  // move sets the focus on the row that is by that many rows after the one with the focus, or on the first. It returns
  // false where there is none.
  move(by) {
    const rows = [...this.#table.querySelectorAll('tr[data-key]')];
    const now = rows.indexOf(document.activeElement?.closest('tr[data-key]'));
    return this.#focus(rows[now < 0 ? 0 : now + by]);
  }

  focusKey(key) {
    return this.#focus([...this.#table.querySelectorAll('tr[data-key]')].find((row) => row.dataset.key === key));
  }

  // A row with a link gives the focus to it, so that Enter opens it.
  #focus(row) {
    const target = row?.querySelector('a') ?? row;
    target?.focus();
    row?.scrollIntoView({ block: 'nearest' });
    return Boolean(row);
  }
}
