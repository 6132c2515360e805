// The store holds the Services and EndpointSlices of one cluster, and says which Services changed, once per frame.

import { keyOf, readiness, toService, toSlice } from './model.js';

// Collection is the sink of a Feed: a map of what convert makes of objects. onChange hears of each change with the value
// before and after; one of them is undefined where there is none.
class Collection {
  #convert; #onChange;
  #listed = null; // keys that the running list has brought
  map = new Map();

  constructor(convert, onChange) {
    this.#convert = convert;
    this.#onChange = onChange;
  }

  begin() {
    this.#listed = new Set();
  }

  add(items) {
    for (const o of items) {
      this.#listed.add(keyOf(o));
      this.#set(o, false);
    }
  }

  // end drops what the list no longer had. Until then it stays, so that a new list does not empty the page.
  end() {
    for (const key of [...this.map.keys()]) if (!this.#listed.has(key)) this.#drop(key);
    this.#listed = null;
  }

  change(type, o) {
    if (type === 'DELETED') this.#drop(keyOf(o));
    else this.#set(o, true);
  }

  #set(o, live) {
    const next = this.#convert(o);
    const before = this.map.get(next.key);
    next.fresh = live && !before;
    this.map.set(next.key, next);
    this.#onChange(before, next);
  }

  #drop(key) {
    const before = this.map.get(key);
    if (this.map.delete(key)) this.#onChange(before, undefined);
  }
}

export class Store {
  #changed = new Set();
  #frame = 0;
  #sorted = null;
  #slicesOf = new Map(); // key of a Service -> Map of its slices
  #onChange;

  services = new Collection(toService, (before, after) => this.#serviceChanged(before, after));
  slices = new Collection(toSlice, (before, after) => this.#sliceChanged(before, after));

  // onChange is called with the set of keys of Services that changed, themselves or by their endpoints. A thousand
  // events between two frames are one call.
  constructor(onChange) {
    this.#onChange = onChange;
  }

  // close ends the calls.
  close() {
    cancelAnimationFrame(this.#frame);
    this.#onChange = () => {};
  }

  // sorted returns all Services by namespace and name.
  sorted() {
    const byKey = (a, b) => compare(a.namespace, b.namespace) || compare(a.name, b.name);
    this.#sorted ??= [...this.services.map.values()].sort(byKey);
    return this.#sorted;
  }

  readiness(service, port) {
    return readiness(port, this.#slicesOf.get(service.key)?.values() ?? []);
  }

  #serviceChanged(before, after) {
    this.#sorted = null;
    this.#mark((after ?? before).key);
  }

  #sliceChanged(before, after) {
    if (before && before.service !== after?.service) this.#slicesOf.get(before.service)?.delete(before.key);
    if (before && this.#slicesOf.get(before.service)?.size === 0) this.#slicesOf.delete(before.service);
    if (after) {
      if (!this.#slicesOf.has(after.service)) this.#slicesOf.set(after.service, new Map());
      this.#slicesOf.get(after.service).set(after.key, after);
    }
    for (const slice of [before, after]) if (slice) this.#mark(slice.service);
  }

  #mark(key) {
    this.#changed.add(key);
    this.#frame ||= requestAnimationFrame(() => {
      const changed = this.#changed;
      this.#changed = new Set();
      this.#frame = 0;
      this.#onChange(changed);
    });
  }
}

// compare orders as Kubernetes sorts names: by code, without a language.
export function compare(a, b) {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
