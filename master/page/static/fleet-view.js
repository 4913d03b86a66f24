// The fleet: counts by state, and the grid with its search, filter and sort order.

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
const MIN_SORT_INTERVAL_MS = 3000;
const OVERVIEW_POLL_MS = 2000;
const STATUSES = ['queued', 'pending', 'running', 'completed', 'failed', 'cancelled'];
const byName = new Intl.Collator('en', { numeric: true }).compare;

/** The filters of the fleet. They are kept while the page is open. */
const filters = { text: '', state: null, sort: 'name', density: 'auto' };

/** The view at `#/`. */
export class FleetView {
  constructor({ fleet }) {
    this.fleet = fleet;
    this.title = 'Fleet';
    this.grid = new Grid(fleet);
    this.lastSort = 0;
    this.tiles = new Map();
    this.summary = h('p', { class: 'count', 'aria-live': 'off' });
    this.empty = h('div', { class: 'empty', hidden: true });
    this.element = h('div', { class: 'fleet' }, h('h1', { class: 'visually-hidden' }, 'Fleet'),
      this.makeTiles(), this.makeToolbar(), this.empty, this.grid.element, makeLegend());
    this.cleanups = [fleet.subscribe((changed, removed) => this.onChange(changed, removed))];
    this.every(1000, () => this.grid.tick());
    this.every(OVERVIEW_POLL_MS, () => this.loadOverview());
    this.loadOverview();
    this.updateGrid();
  }

  close() {
    for (const cleanUp of this.cleanups) cleanUp();
    this.isClosed = true;
  }

  every(milliseconds, action) {
    const timer = setInterval(() => document.hidden || action(), milliseconds);
    this.cleanups.push(() => clearInterval(timer));
  }

  makeTiles() {
    const states = STATES.map((state) => {
      const button = h('button', { type: 'button', class: 'tile', 'data-state': state, 'aria-pressed': 'false',
        onclick: () => this.setState(state) });
      return this.makeTile(button, state, state);
    });
    const statuses = STATUSES.map((status) =>
      this.makeTile(h('a', { class: 'tile', href: `#/tasks?status=${status}`, 'data-status': status }), status, status));
    return h('div', { class: 'tiles' },
      h('section', { 'aria-label': 'Workers by state' }, h('h2', {}, 'Workers'), h('div', { class: 'tile-row' }, ...states)),
      h('section', { 'aria-label': 'Tasks by status' }, h('h2', {}, 'Tasks'), h('div', { class: 'tile-row' }, ...statuses)));
  }

  makeTile(element, key, title) {
    const value = h('span', { class: 'tile-value' }, '–');
    element.append(value, h('span', { class: 'tile-title' }, title));
    this.tiles.set(key, value);
    return element;
  }

  makeToolbar() {
    const [searchId, sortId, densityId] = ['search', 'sort', 'density'].map(newId);
    this.search = h('input', { id: searchId, type: 'search', placeholder: 'worker or host name', autocomplete: 'off',
      spellcheck: 'false', 'aria-keyshortcuts': '/', 'data-shortcut': 'search', oninput: () => this.setFilters({ text: this.search.value }) });
    this.search.value = filters.text;
    const sort = makeSelect(sortId, Object.entries(SORTS).map(([key, [title]]) => [key, title]), filters.sort,
      (value) => this.setFilters({ sort: value }));
    const density = makeSelect(densityId, [['auto', 'Automatic'], ['cards', 'Cards'], ['names', 'Names'], ['dots', 'Dots']],
      filters.density, (value) => this.setFilters({ density: value }));
    return h('div', { class: 'toolbar', role: 'search', 'aria-label': 'Workers' },
      h('label', { for: searchId }, 'Find'), this.search, h('label', { for: sortId }, 'Sort by'), sort,
      h('label', { for: densityId }, 'Show as'), density, this.summary);
  }

  setFilters(changes) {
    Object.assign(filters, changes);
    this.updateGrid();
  }

  setState(state) {
    filters.state = filters.state === state ? null : state;
    this.updateGrid();
  }

  async loadOverview() {
    try {
      const { tasks } = await overview();
      for (const status of STATUSES) setText(this.tiles.get(status), tasks[status].toLocaleString('en'));
    } catch {
      for (const status of STATUSES) setText(this.tiles.get(status), '–');
    }
  }

  onChange(changed, removed) {
    this.grid.update(changed);
    this.showCounts();
    const areKnown = [...changed].every((id) => this.known.has(id));
    if (removed.size || !areKnown || this.hasCrossedFilter(changed)) this.updateGrid();
    else if (filters.sort !== 'name' && performance.now() - this.lastSort > MIN_SORT_INTERVAL_MS) this.updateGrid();
  }

  hasCrossedFilter(changed) {
    return filters.state !== null && [...changed].some((id) =>
      this.shown.has(id) !== (this.fleet.stateOf(this.fleet.workers.get(id)) === filters.state));
  }

  updateGrid() {
    this.lastSort = performance.now();
    this.known = new Set(this.fleet.workers.keys());
    const ids = this.matchingIds();
    this.shown = new Set(ids);
    this.grid.show(ids, filters.density === 'auto' ? densityFor(ids.length) : filters.density);
    for (const button of this.element.querySelectorAll('.tile[aria-pressed]')) {
      button.setAttribute('aria-pressed', String(button.dataset.state === filters.state));
    }
    this.showCounts();
  }

  matchingIds() {
    const text = filters.text.trim().toLowerCase();
    const matches = (worker) => !text || worker.worker_id.toLowerCase().includes(text) || worker.hostname?.toLowerCase().includes(text);
    const workers = [...this.fleet.workers.values()].filter((worker) =>
      matches(worker) && (filters.state === null || this.fleet.stateOf(worker) === filters.state));
    workers.sort((one, other) => byName(one.worker_id, other.worker_id));
    const key = SORTS[filters.sort][1];
    // Workers without the reading come last. The sort is stable, so equal ones stay in the order of their names.
    if (key) workers.sort((one, other) => (key(other, this.fleet) ?? -1) - (key(one, this.fleet) ?? -1));
    return workers.map((worker) => worker.worker_id);
  }

  showCounts() {
    const counts = this.fleet.counts();
    for (const state of STATES) setText(this.tiles.get(state), this.fleet.isComplete ? counts[state].toLocaleString('en') : '–');
    const total = this.fleet.workers.size;
    setText(this.summary, `${this.shown.size.toLocaleString('en')} of ${total.toLocaleString('en')}`);
    this.empty.hidden = this.shown.size > 0;
    if (!this.empty.hidden) this.showEmptyText(total);
  }

  showEmptyText(total) {
    if (total) setText(this.empty, 'No worker matches. Clear the search or the state above.');
    else if (this.fleet.isComplete) {
      this.empty.replaceChildren(h('p', {}, 'No worker has reported yet. Start one on any machine:'),
        h('pre', {}, 'fleetpulse worker --master HOST:50051'));
    } else setText(this.empty, 'Asking the master…');
  }
}

function makeSelect(id, options, value, onchange) {
  return h('select', { id, onchange: (event) => onchange(event.target.value) },
    ...options.map(([key, title]) => h('option', { value: key, selected: key === value }, title)));
}

function makeLegend() {
  return h('p', { class: 'legend' }, ...STATES.map((state) => h('span', { class: 'state', 'data-state': state }, state)),
    ...[['cpu', 'CPU'], ['memory', 'memory'], ['gpu', 'GPU']].map(([name, title]) => h('span', { class: `key ${name}` }, title)));
}
