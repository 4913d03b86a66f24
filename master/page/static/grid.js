// The grid of workers: cards for small fleets, else one element per worker with its bars as a background.

import { h, setAttribute, setChildren, setText } from './dom.js';
import { MISSING, age, number, percent, plural } from './format.js';

const MAX_CARDS = 80;
const MAX_NAMES = 800;
const BARS = [['cpu', 'CPU', 'cpu_usage'], ['memory', 'Memory', 'memory_usage'], ['gpu', 'GPU', 'gpu_usage']];

/** The density for a number of workers. */
export function densityFor(count) {
  if (count <= MAX_CARDS) return 'cards';
  return count <= MAX_NAMES ? 'names' : 'dots';
}

export class Grid {
  constructor(fleet) {
    this.fleet = fleet;
    this.cells = new Map();
    this.density = null;
    this.element = h('div', { class: 'grid', role: 'group', 'aria-label': 'Workers' });
    this.element.addEventListener('keydown', (event) => this.onKey(event));
    this.element.addEventListener('focusin', (event) => this.setTabStop(event.target.closest('.cell')));
  }

  /** Shows these workers, in this order. */
  show(ids, density) {
    if (density !== this.density) {
      this.density = density;
      this.cells.clear();
      this.element.replaceChildren();
      this.element.dataset.density = density;
    }
    const cells = ids.map((id) => this.cellOf(id));
    setChildren(this.element, cells.map((cell) => cell.element));
    if (this.cells.size > ids.length) {
      const shown = new Set(ids);
      for (const id of [...this.cells.keys()]) if (!shown.has(id)) this.cells.delete(id);
    }
    if (!this.element.querySelector('.cell[tabindex="0"]')) this.setTabStop(this.element.firstElementChild);
  }

  /** Redraws those of these workers that are shown. */
  update(ids) {
    for (const id of ids) this.cells.get(id)?.update(this.fleet.workers.get(id));
  }

  /** Updates what depends on the current time. */
  tick() {
    for (const cell of this.cells.values()) cell.tick?.();
  }

  cellOf(id) {
    let cell = this.cells.get(id);
    if (!cell) {
      cell = this.density === 'cards' ? new Card(this.fleet) : new Dot(this.fleet);
      cell.update(this.fleet.workers.get(id));
      this.cells.set(id, cell);
    }
    return cell;
  }

  /** Makes one cell the only stop of the tab key (roving tabindex); arrow keys reach the others. */
  setTabStop(cell) {
    if (!cell || cell.tabIndex === 0) return;
    for (const other of this.element.querySelectorAll('.cell[tabindex="0"]')) other.tabIndex = -1;
    cell.tabIndex = 0;
  }

  onKey(event) {
    const cells = [...this.element.children];
    const index = cells.indexOf(event.target.closest('.cell'));
    const row = cells.findIndex((cell) => cell.offsetTop > cells[0].offsetTop);
    const columns = row < 0 ? cells.length : row;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -index, End: cells.length - 1 - index };
    const target = cells[index + steps[event.key]];
    if (index < 0 || !(event.key in steps) || !target) return;
    event.preventDefault();
    target.focus();
  }
}

function makeCell(kind) {
  return h('a', { class: `cell ${kind}`, tabindex: '-1' });
}

function label(worker, state) {
  const readings = BARS.filter(([, , field]) => worker[field] !== null && worker[field] !== undefined);
  const parts = readings.map(([, name, field]) => `${name} ${percent(worker[field])}`);
  return [worker.worker_id, state, ...parts, plural(worker.running_tasks_count ?? 0, 'task')].join(', ');
}

/** A worker as one element. CSS draws the bars from custom properties, so a changed number needs no layout. */
class Dot {
  constructor(fleet) {
    this.fleet = fleet;
    this.element = makeCell('dot');
    this.drawn = {};
  }

  update(worker) {
    const state = this.fleet.stateOf(worker);
    if (!this.element.textContent) {
      this.element.textContent = worker.worker_id;
      this.element.href = `#/workers/${encodeURIComponent(worker.worker_id)}`;
    }
    setAttribute(this.element, 'data-state', state);
    for (const [name, , field] of BARS) {
      const value = worker[field] ?? null;
      const height = value === null ? null : Math.round(value);
      if (this.drawn[name] === height) continue;
      this.drawn[name] = height;
      if (height === null) this.element.style.removeProperty(`--${name}-value`);
      else this.element.style.setProperty(`--${name}-value`, height);
    }
    this.element.classList.toggle('without-gpu', this.drawn.gpu === null);
    const text = label(worker, state);
    setAttribute(this.element, 'aria-label', text);
    setAttribute(this.element, 'title', text);
  }
}

/** A worker with names, numbers and words. */
class Card {
  constructor(fleet) {
    this.fleet = fleet;
    this.bars = BARS.map(([name, title]) => new Bar(name, title));
    this.name = h('span', { class: 'card-name' });
    this.state = h('span', { class: 'state' });
    this.host = h('span', { class: 'card-host' });
    this.foot = h('span', { class: 'card-foot' });
    this.element = makeCell('card');
    this.element.append(h('span', { class: 'card-head' }, this.name, this.state), this.host,
      ...this.bars.map((bar) => bar.element), this.foot);
  }

  update(worker) {
    this.worker = worker;
    const state = this.fleet.stateOf(worker);
    setAttribute(this.element, 'href', `#/workers/${encodeURIComponent(worker.worker_id)}`);
    setAttribute(this.element, 'data-state', state);
    setAttribute(this.element, 'aria-label', label(worker, state));
    setText(this.name, worker.worker_id);
    setText(this.state, state);
    setAttribute(this.state, 'data-state', state);
    setText(this.host, [
      worker.hostname && worker.hostname !== worker.worker_id ? worker.hostname : null,
      worker.cpu_cores ? plural(worker.cpu_cores, 'core') : null,
      worker.gpus?.length ? plural(worker.gpus.length, 'GPU') : null,
    ].filter(Boolean).join(' · ') || MISSING);
    this.bars.forEach((bar, index) => bar.update(worker[BARS[index][2]]));
    this.tick();
  }

  tick() {
    const { worker } = this;
    const facts = worker.is_active
      ? [plural(worker.running_tasks_count ?? 0, 'task'), `load ${number(worker.load1)}`]
      : [`silent for ${age(worker.last_update)}`];
    setText(this.foot, facts.join(' · '));
  }
}

class Bar {
  constructor(name, title) {
    this.value = h('span', { class: 'bar-value' });
    this.track = h('span', { class: `bar-track ${name}` });
    this.element = h('span', { class: 'bar' }, h('span', { class: 'bar-title' }, title), this.track, this.value);
  }

  update(value) {
    const isMissing = value === null || value === undefined;
    this.element.classList.toggle('missing', isMissing);
    this.track.style.setProperty('--value', isMissing ? 0 : Math.round(value));
    setText(this.value, percent(value));
  }
}
