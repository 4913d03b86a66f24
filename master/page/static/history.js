// The history of a worker, as plots.

import { history } from './api.js';
import { h, setText } from './dom.js';
import { bytes, number, percent } from './format.js';
import { Plot } from './plot.js';

const REFRESH_MS = 15000;
const rate = (value) => (value === null ? bytes(value) : `${bytes(value)}/s`);
const SPANS = [['-15m', '15 min'], ['-1h', '1 hour'], ['-6h', '6 hours'], ['-24h', '24 hours'], ['-7d', '7 days']];

const PLOTS = [
  { title: 'CPU', fields: [['cpu_usage', 'CPU', 'cpu']], format: (value) => percent(value, 0), axisMax: 100 },
  { title: 'Memory', fields: [['memory_usage', 'memory', 'memory']], format: (value) => percent(value, 0), axisMax: 100 },
  { title: 'GPU', fields: [['gpu_usage', 'GPU', 'gpu']], format: (value) => percent(value, 0), axisMax: 100 },
  { title: 'Load', fields: [['load1', 'load', 'cpu']], format: (value) => number(value, 2), axisMax: 1 },
  { title: 'Network', fields: [['network_received_bytes_per_second', 'received', 'cpu'],
    ['network_transmitted_bytes_per_second', 'sent', 'memory']], format: rate, base: 1024, axisMax: 1024 },
  { title: 'Disks', fields: [['disk_read_bytes_per_second', 'read', 'cpu'], ['disk_written_bytes_per_second', 'written', 'memory']],
    format: rate, base: 1024, axisMax: 1024 },
  { title: 'Fullest filesystem', fields: [['filesystem_usage', 'used', 'memory']], format: (value) => percent(value, 0), axisMax: 100 },
  { title: 'Running tasks', fields: [['running_tasks', 'tasks', 'gpu']], format: (value) => number(value, 1), axisMax: 4 },
  { title: 'Hottest GPU', fields: [['gpu_temperature_celsius', 'temperature', 'gpu']],
    format: (value) => (value === null ? number(value) : `${number(value, 0)} °C`), axisMax: 80 },
];

export class HistoryPanel {
  constructor(workerId) {
    this.workerId = workerId;
    this.span = '-1h';
    this.note = h('p', { class: 'note', role: 'status' }, 'Asking the master…');
    this.plots = h('div', { class: 'plots' });
    this.spans = h('div', { class: 'spans', role: 'group', 'aria-label': 'How far back' }, ...SPANS.map(([span, title]) =>
      h('button', { type: 'button', class: 'small', 'data-span': span, 'aria-pressed': String(span === this.span),
        onclick: () => this.setSpan(span) }, title)));
    this.element = h('section', { class: 'panel history', 'aria-label': 'History' },
      h('div', { class: 'panel-head' }, h('h2', {}, 'History'), this.spans), this.note, this.plots);
    this.timer = setInterval(() => document.hidden || this.isInUse() || this.load(), REFRESH_MS);
    this.load();
  }

  close() {
    clearInterval(this.timer);
    this.isClosed = true;
  }

  /** Whether somebody uses the plots now, so that they must not be replaced. */
  isInUse() {
    return this.plots.contains(document.activeElement) || this.plots.matches(':hover') || this.plots.querySelector('details[open]');
  }

  setSpan(span) {
    this.span = span;
    for (const button of this.spans.children) button.setAttribute('aria-pressed', String(button.dataset.span === span));
    this.load();
  }

  async load() {
    const { span } = this;
    try {
      const response = await history(this.workerId, { from: span });
      if (!this.isClosed && span === this.span) this.show(response);
    } catch (problem) {
      setText(this.note, problem.status === 404 ? 'There is no history of this worker.' : `No history: ${problem.message}.`);
      this.spans.hidden = problem.status === 404;
    }
  }

  show({ from, step, warning, fields }) {
    const hasReadings = (name) => fields[name]?.mean.some((value) => value !== null);
    const available = PLOTS.filter((plot) => plot.fields.some(([name]) => hasReadings(name)));
    const drawn = available.map(({ title, fields: names, format, base, axisMax }) => new Plot({
      title, from, step, format, base, axisMax,
      series: names.filter(([name]) => hasReadings(name)).map(([name, label, style]) => ({ title: label, class: style, ...fields[name] })),
    }).element);
    this.plots.replaceChildren(...drawn);
    setText(this.note, warning || (drawn.length ? '' : 'There are no readings in this time yet; the first point appears within half a minute.'));
    this.spans.hidden = false;
  }
}
