// The theme: the system's, or the one chosen on this page. This is a classic script in the head, because a module runs
// after the first paint, which would flash in the other theme.
'use strict';

(() => {
  const key = 'varco-theme';
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const root = document.documentElement;

  // A browser may refuse storage; the choice then lasts as long as the page.
  const storage = (act) => {
    try {
      return act(localStorage);
    } catch {
      return null;
    }
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : dark.matches);

  const chosen = storage((s) => s.getItem(key));
  if (chosen === 'dark' || chosen === 'light') root.dataset.theme = chosen;

  addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const show = () => button.setAttribute('aria-pressed', String(isDark()));
    button.addEventListener('click', () => {
      const next = isDark() ? 'light' : 'dark';
      root.dataset.theme = next;
      // Who chose what the system says follows the system again.
      if ((next === 'dark') === dark.matches) {
        delete root.dataset.theme;
        storage((s) => s.removeItem(key));
      } else {
        storage((s) => s.setItem(key, next));
      }
      show();
    });
    dark.addEventListener('change', show);
    show();
  });
})();
