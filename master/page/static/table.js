// Tables that update in place: each row keeps its element, and only changed cells are redrawn.

import { h, setAttribute, setChildren, setText } from './dom.js';

export class LiveTable {
  /** `columns`: `{title, class, draw(cell, item)}`; `keyOf(item)` identifies a row. */
  constructor({ label, columns, keyOf }) {
    this.columns = columns;
    this.keyOf = keyOf;
    this.rows = new Map();
    this.body = h('tbody', { role: 'rowgroup' });
    // On a narrow screen CSS lays the table out as a list; the roles keep it a table for screen readers.
    const head = columns.map(({ title, class: name }) => h('th', { scope: 'col', role: 'columnheader', class: name }, title));
    this.element = h('table', { class: 'table', role: 'table', 'aria-label': label },
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ...head)), this.body);
  }

  show(items) {
    const rows = new Map(items.map((item) => {
      const key = this.keyOf(item);
      return [key, this.rows.get(key) || this.makeRow()];
    }));
    this.rows = rows;
    items.forEach((item) => {
      const { cells } = rows.get(this.keyOf(item));
      this.columns.forEach(({ draw }, index) => draw(cells[index], item));
    });
    setChildren(this.body, [...rows.values()].map((row) => row.element));
  }

  makeRow() {
    const cells = this.columns.map(({ title, class: name }) => h('td', { role: 'cell', class: name, 'data-title': title }));
    return { cells, element: h('tr', { role: 'row' }, ...cells) };
  }
}

/** A column of text. */
export function text(title, read, name = null) {
  return { title, class: name, draw: (cell, item) => setText(cell, read(item)) };
}

/** A column of links: `read(item)` returns `{text, href}` or null. */
export function link(title, read, name = null) {
  return { title, class: name, draw: (cell, item) => {
    const target = read(item);
    if (!target) setText(cell, '–');
    else {
      const anchor = cell.querySelector('a') || cell.replaceChildren(h('a')) || cell.firstElementChild;
      setText(anchor, target.text);
      setAttribute(anchor, 'href', target.href);
    }
  } };
}

/** The main column: a link with a line below it. `read(item)` returns `{text, href, below}`. */
export function mainLink(title, read) {
  return { title, class: 'main', draw: (cell, item) => {
    const target = read(item);
    if (!cell.firstElementChild) cell.append(h('a'), h('span', { class: 'below' }));
    const [anchor, below] = cell.children;
    setText(anchor, target.text);
    setAttribute(anchor, 'href', target.href);
    setText(below, target.below);
  } };
}

/** A column of statuses, as badges. */
export function status(title, read) {
  return { title, class: 'status-cell', draw: (cell, item) => {
    const word = read(item);
    const badge = cell.querySelector('.status') || cell.replaceChildren(h('span', { class: 'status' })) || cell.firstElementChild;
    setText(badge, word);
    badge.dataset.status = word;
  } };
}
