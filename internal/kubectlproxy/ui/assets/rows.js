// The rows of one Service: one for each port. What is the Service's own spans them all.

import { el, setText, spoken } from './dom.js';

// makeRows returns { rows, shape, update }. shape is all that the rows show but readiness: rows of the same shape are
// kept, and update changes readiness in place, so that a link never vanishes under the pointer because a pod became ready.
export function makeRows(service, link) {
  const ports = service.ports.length > 0 ? service.ports : [null];
  const cells = [];
  const rows = ports.map((port, i) => {
    const row = el('tr', i === 0 ? 'service' : 'port');
    row.setAttribute('role', 'row');
    row.classList.toggle('portless', !port); // a card has no place for dashes
    row.tabIndex = -1;
    row.dataset.key = `${service.key}:${port?.key ?? ''}`;
    if (i === 0) row.append(...serviceCells(service, ports.length));
    const ready = cell('ready');
    cells.push({ port, ready });
    row.append(...portCells(port), ready, openCell(port && link(port), service));
    return row;
  });
  if (service.fresh) rows.forEach((row) => row.classList.add('fresh'));
  const update = (readiness) => cells.forEach(({ port, ready }) => showReadiness(ready, port && readiness(port)));
  return { rows, shape: shapeOf(service, link), update };
}

export function shapeOf(service, link) {
  return JSON.stringify([service.type, service.clusterIPs, service.external,
    service.ports.map((p) => [p, link(p)])]);
}

// cell has its role written down: the narrow layout makes rows a grid, and CSS that does so takes the role away.
function cell(className, ...children) {
  const e = el('td', className, ...children);
  e.setAttribute('role', 'cell');
  return e;
}

function serviceCells(service, span) {
  const name = el('th', 'name', service.name);
  name.scope = 'row';
  name.setAttribute('role', 'rowheader');
  const cells = [
    name,
    cell('type', service.type),
    cell('address', ...addresses(service)),
  ];
  for (const c of cells) c.rowSpan = span;
  return cells;
}

function addresses({ clusterIPs, external }) {
  const inside = clusterIPs.map((a) => (a === 'None' ? el('div', 'quiet', 'headless') : el('div', '', a)));
  const outside = external.map((a) => el('div', 'external', a, ' ', el('span', 'quiet', 'external')));
  return inside.length + outside.length > 0 ? [...inside, ...outside] : [nothing()];
}

function nothing() {
  return el('span', 'quiet', '–');
}

function portCells(port) {
  if (!port) return [cell('number', nothing()), cell('label', nothing()), cell('protocol', nothing())];
  const label = cell('label', port.name || nothing());
  if (port.appProtocol) label.append(' ', el('span', 'app', port.appProtocol));
  return [cell('number', String(port.port)), label, cell('protocol', port.protocol)];
}

function openCell(link, service) {
  if (!link) return cell('open', nothing());
  if (link.why !== undefined) return cell('open', link.why ? el('span', 'quiet', link.why) : nothing());
  const tail = link.host.indexOf('.svc.'); // the same on every row
  const a = el('a', '', link.host.slice(0, tail), el('span', 'quiet', link.host.slice(tail)), spoken(' (new tab)'));
  a.href = link.href;
  a.target = '_blank';
  a.rel = 'noopener';
  a.title = link.host;
  a.dataset.service = service.key;
  return cell('open', a);
}

// showReadiness marks the three cases by form and words too, not by colour alone. r is null where endpoints have no
// meaning, and undefined where they may not be read.
function showReadiness(ready, r) {
  const state = stateOf(r);
  const text = r ? `${r.ready}/${r.total}` : '–';
  if (ready.dataset.state === state && ready.dataset.text === text) return;
  ready.dataset.state = state;
  ready.dataset.text = text;
  const words = { some: '', all: '', none: r?.total ? 'none ready' : 'no endpoints', unknown: 'not permitted', no: '' };
  if (ready.childElementCount === 0) {
    const mark = el('span', 'mark');
    mark.setAttribute('aria-hidden', 'true');
    ready.append(mark, el('span', 'count'), spoken(''), el('span', 'words'));
  }
  setText(ready.querySelector('.count'), text);
  setText(ready.querySelector('.spoken'), r ? ' ready' : '');
  setText(ready.querySelector('.words'), words[state]);
}

function stateOf(r) {
  if (r === null) return 'no';
  if (r === undefined) return 'unknown';
  if (r.ready === 0) return 'none';
  return r.ready === r.total ? 'all' : 'some';
}
