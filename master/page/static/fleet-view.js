// The fleet at a glance: counts, the grid, and what one filters and sorts it by.

import { overview } from './api.js';
import { h, newId, setText } from './dom.js';
import { STATES } from './fleet.js';
import { Grid, densityFor } from './grid.js';

const SORTS = {
  name: ['Name', null],
  state: ['State', (worker, fleet) => STATES.indexOf(fleet.stateOf(worker))],
  cpu: ['CPU', (worker) => worker.cpu_usage],
  memory: ['Memory', (worker) => worker.memory_usage],
  gpu: ['GPU', (worker) => worker.gpu_usage],
  tasks: ['Tasks', (worker) => worker.running_tasks_count],
};
const RESORT_MS = 3000;
const OVERVIEW_MS = 2000;
const STATUSES = ['queued', 'pending', 'running', 'completed', 'failed', 'cancelled'];
const byName = new Intl.Collator('en', { numeric: true }).compare;

/** The view at `#/`. What was searched and sorted by is kept while the page is open. */
const wish = { text: '', state: null, sort: 'name', density: 'auto' };

export class FleetView {
  constructor({ fleet }) {
    this.fleet = fleet;
    this.title = 'Fleet';
    this.grid = new Grid(fleet);
    this.lastSort = 0;
    this.tiles = new Map();
    this.summary = h('p', { class: 'count', 'aria-live': 'off' });
    this.empty = h('div', { class: 'empty', hidden: true });
    this.element = h('div', { class: 'fleet' }, h('h1', { class: 'unseen' }, 'Fleet'),
      this.makeTiles(), this.makeToolbar(), this.empty, this.grid.element, legend());
    this.endings = [fleet.listen((changed, left) => this.onChange(changed, left))];
    this.every(1000, () => this.grid.tick());
    this.every(OVERVIEW_MS, () => this.ask());
    this.ask();
    this.arrange();
  }

  close() {
    for (const end of this.endings) end();
    this.isClosed = true;
  }

  every(milliseconds, action) {
    const timer = setInterval(() => document.hidden || action(), milliseconds);
    this.endings.push(() => clearInterval(timer));
  }

  makeTiles() {
    const states = STATES.map((state) => {
      const button = h('button', { type: 'button', class: 'tile', 'data-state': state, 'aria-pressed': 'false',
        onclick: () => this.setState(state) });
      return this.tile(button, state, state);
    });
    const statuses = STATUSES.map((status) =>
      this.tile(h('a', { class: 'tile', href: `#/tasks?status=${status}`, 'data-status': status }), status, status));
    return h('div', { class: 'tiles' },
      h('section', { 'aria-label': 'Workers by state' }, h('h2', {}, 'Workers'), h('div', { class: 'tile-row' }, ...states)),
      h('section', { 'aria-label': 'Tasks by status' }, h('h2', {}, 'Tasks'), h('div', { class: 'tile-row' }, ...statuses)));
  }

  tile(element, key, title) {
    const value = h('span', { class: 'tile-value' }, '–');
    element.append(value, h('span', { class: 'tile-title' }, title));
    this.tiles.set(key, value);
    return element;
  }

  makeToolbar() {
    const [searchId, sortId, densityId] = ['search', 'sort', 'density'].map(newId);
    this.search = h('input', { id: searchId, type: 'search', placeholder: 'worker or host name', autocomplete: 'off',
      spellcheck: 'false', 'aria-keyshortcuts': '/', 'data-shortcut': 'search', oninput: () => this.wish({ text: this.search.value }) });
    this.search.value = wish.text;
    const sort = choice(sortId, Object.entries(SORTS).map(([key, [title]]) => [key, title]), wish.sort,
      (value) => this.wish({ sort: value }));
    const density = choice(densityId, [['auto', 'Automatic'], ['cards', 'Cards'], ['names', 'Names'], ['dots', 'Dots']],
      wish.density, (value) => this.wish({ density: value }));
    return h('div', { class: 'toolbar', role: 'search', 'aria-label': 'Workers' },
      h('label', { for: searchId }, 'Find'), this.search, h('label', { for: sortId }, 'Sort by'), sort,
      h('label', { for: densityId }, 'Show as'), density, this.summary);
  }

  wish(changes) {
    Object.assign(wish, changes);
    this.arrange();
  }

  setState(state) {
    wish.state = wish.state === state ? null : state;
    this.arrange();
  }

  async ask() {
    try {
      const { tasks } = await overview();
      for (const status of STATUSES) setText(this.tiles.get(status), tasks[status].toLocaleString('en'));
    } catch {
      for (const status of STATUSES) setText(this.tiles.get(status), '–');
    }
  }

  onChange(changed, left) {
    this.grid.update(changed);
    this.showCounts();
    const known = [...changed].every((id) => this.known.has(id));
    if (left.size || !known || this.isOutOfPlace(changed)) this.arrange();
    else if (wish.sort !== 'name' && performance.now() - this.lastSort > RESORT_MS) this.arrange();
  }

  isOutOfPlace(changed) {
    return wish.state !== null && [...changed].some((id) =>
      this.shown.has(id) !== (this.fleet.stateOf(this.fleet.workers.get(id)) === wish.state));
  }

  arrange() {
    this.lastSort = performance.now();
    this.known = new Set(this.fleet.workers.keys());
    const ids = this.wanted();
    this.shown = new Set(ids);
    this.grid.show(ids, wish.density === 'auto' ? densityFor(ids.length) : wish.density);
    for (const button of this.element.querySelectorAll('.tile[aria-pressed]')) {
      button.setAttribute('aria-pressed', String(button.dataset.state === wish.state));
    }
    this.showCounts();
  }

  wanted() {
    const text = wish.text.trim().toLowerCase();
    const matches = (worker) => !text || worker.worker_id.toLowerCase().includes(text) || worker.hostname?.toLowerCase().includes(text);
    const workers = [...this.fleet.workers.values()].filter((worker) =>
      matches(worker) && (wish.state === null || this.fleet.stateOf(worker) === wish.state));
    workers.sort((one, other) => byName(one.worker_id, other.worker_id));
    const key = SORTS[wish.sort][1];
    // Those without the reading come last; the order of names stays among equals.
    if (key) workers.sort((one, other) => (key(other, this.fleet) ?? -1) - (key(one, this.fleet) ?? -1));
    return workers.map((worker) => worker.worker_id);
  }

  showCounts() {
    const counts = this.fleet.counts();
    for (const state of STATES) setText(this.tiles.get(state), this.fleet.isComplete ? counts[state].toLocaleString('en') : '–');
    const total = this.fleet.workers.size;
    setText(this.summary, `${this.shown.size.toLocaleString('en')} of ${total.toLocaleString('en')}`);
    this.empty.hidden = this.shown.size > 0;
    if (!this.empty.hidden) this.sayWhyEmpty(total);
  }

  sayWhyEmpty(total) {
    if (total) setText(this.empty, 'No worker matches. Clear the search or the state above.');
    else if (this.fleet.isComplete) {
      this.empty.replaceChildren(h('p', {}, 'No worker has reported yet. Start one on any machine:'),
        h('pre', {}, 'fleetpulse worker --master HOST:50051'));
    } else setText(this.empty, 'Asking the master…');
  }
}

function choice(id, options, value, onchange) {
  const select = h('select', { id, onchange: () => onchange(select.value) },
    ...options.map(([key, title]) => h('option', { value: key, selected: key === value }, title)));
  return select;
}

function legend() {
  return h('p', { class: 'legend' }, ...STATES.map((state) => h('span', { class: 'state', 'data-state': state }, state)),
    ...[['cpu', 'CPU'], ['memory', 'memory'], ['gpu', 'GPU']].map(([name, title]) => h('span', { class: `key ${name}` }, title)));
}
