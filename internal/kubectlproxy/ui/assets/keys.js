// The keyboard: / searches, Escape clears and leads back, arrows go through the results. Enter is the browser's own: the
// focus is on a link.

import { id } from './dom.js';

// bindKeys wires the search field and the table. clear empties the search.
export function bindKeys(table, clear) {
  const search = id('search');
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches('input, select, textarea')) return;
    event.preventDefault(); // or the slash would be typed
    search.focus();
    search.select();
  });
  search.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      event.preventDefault();
      clear();
    }
    if ((event.key === 'ArrowDown' || event.key === 'Enter') && table.move(0)) event.preventDefault();
  });
  id('services').addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) {
      event.preventDefault(); // or the page would scroll as well
      if (!table.move(by) && by < 0) search.focus();
    }
    if (event.key === 'Escape') search.focus();
  });
}
