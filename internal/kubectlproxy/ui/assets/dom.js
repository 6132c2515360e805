// el makes an element: el('td', 'name', 'text', child, …). Strings become text nodes, whatever they contain, and that is
// the only way by which text gets into the page.
export function el(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

// spoken makes text that is read aloud and not shown.
export const spoken = (text) => el('span', 'spoken', text);

// id is document.getElementById.
export const id = (name) => document.getElementById(name);

// setText changes text only where it differs, so that nothing is read aloud or repainted twice.
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// setOptions fills a select, and leaves it alone where it has them: a list that is open would close.
export function setOptions(select, options, value) {
  const now = [...select.options].map((o) => `${o.value}\n${o.text}`).join('\n');
  if (now !== options.map((o) => `${o.value}\n${o.text}`).join('\n')) {
    select.replaceChildren(...options.map((o) => new Option(o.text, o.value)));
  }
  select.value = value;
}
