// A plot of readings over time: axes with units, gaps for missing readings, a readout, and a table of the numbers.

import { h, newId, setText, svg } from './dom.js';
import { clock, day } from './format.js';
import { pathsOf, ticks, timeTicks } from './scale.js';

const MAX_WIDTH = 520;
const MIN_WIDTH = 250;
const PAGE_MARGIN = 50;
const TIME_LABEL_WIDTH = 56;
const LONG_SECONDS = 2 * 86400;
const HEIGHT = 190;
const LEFT = 72;
const RIGHT = 20;
const TOP = 10;
const BOTTOM = 24;

export class Plot {
  /**
   * `series`: `{title, class, mean, min, max}` with a value or null for each step; point i is at the time
   * from + i * step. `format(value)` returns a value with its unit. `axisMax` is the least end of the y axis.
   */
  constructor({ title, series, from, step, format, base = 10, axisMax = 0 }) {
    Object.assign(this, { title, series, from, step, format });
    // On a narrow screen the drawing is narrower, and text keeps its size.
    this.width = Math.min(MAX_WIDTH, Math.max(MIN_WIDTH, window.innerWidth - PAGE_MARGIN));
    this.count = Math.max(...series.map(({ mean }) => mean.length));
    this.to = from + this.count * step;
    this.isLong = this.to - from > LONG_SECONDS;
    const highest = Math.max(axisMax, ...series.flatMap(({ mean, max }) => (max || mean).filter((value) => value !== null)));
    this.ticks = ticks(highest, base);
    this.cursor = null;
    this.element = h('figure', { class: 'plot' }, this.makeCaption(), this.makeDrawing(), this.makeTable());
  }

  x(index) {
    return LEFT + ((index + 0.5) / this.count) * (this.width - LEFT - RIGHT);
  }

  y(value) {
    return HEIGHT - BOTTOM - (value / this.ticks.at(-1)) * (HEIGHT - TOP - BOTTOM);
  }

  makeCaption() {
    this.readout = h('span', { class: 'readout' });
    this.captionId = newId('plot');
    const keys = this.series.length > 1 ? this.series.map(({ title, class: name }) => h('span', { class: `key ${name}` }, title)) : [];
    this.showReadout(null);
    return h('figcaption', {}, h('span', { class: 'plot-title', id: this.captionId }, this.title), ...keys, this.readout);
  }

  makeDrawing() {
    this.line = svg('line', { class: 'cursor', y1: TOP, y2: HEIGHT - BOTTOM, visibility: 'hidden' });
    this.dots = this.series.map(({ class: name }) => svg('circle', { class: `dot-mark ${name}`, r: 3.5, visibility: 'hidden' }));
    this.drawing = svg('svg', { viewBox: `0 0 ${this.width} ${HEIGHT}`, class: 'drawing', role: 'img', tabindex: '0',
      'aria-labelledby': this.captionId,
      onpointermove: (event) => this.onPointer(event), onpointerleave: () => this.select(null),
      onfocus: () => this.select(this.cursor ?? this.lastIndex()), onblur: () => this.select(null), onkeydown: (event) => this.onKey(event) },
    ...this.makeAxes(), ...this.series.flatMap((series) => this.makeSeries(series)), this.line, ...this.dots);
    return this.drawing;
  }

  makeAxes() {
    const across = this.ticks.flatMap((value) => [
      svg('line', { class: 'rule', x1: LEFT, x2: this.width - RIGHT, y1: this.y(value), y2: this.y(value) }),
      svg('text', { class: 'tick', x: LEFT - 8, y: this.y(value) + 4, 'text-anchor': 'end' }, this.format(value)),
    ]);
    const down = timeTicks(this.from, this.to, (this.width - LEFT) / TIME_LABEL_WIDTH).flatMap((time) => {
      const x = this.x((time - this.from) / this.step - 0.5);
      return [
        svg('line', { class: 'tick-mark', x1: x, x2: x, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4 }),
        svg('text', { class: 'tick', x, y: HEIGHT - 6, 'text-anchor': 'middle' },
          this.isLong ? day(time) : clock(time, false)),
      ];
    });
    return [...across, ...down];
  }

  makeSeries({ mean, min, max, class: name }) {
    const [x, y] = [(index) => this.x(index), (value) => this.y(value)];
    const { lines, areas } = pathsOf({ mean, min, max }, x, y);
    return [svg('path', { class: `band ${name}`, d: areas }), svg('path', { class: `line ${name}`, d: lines })];
  }

  onPointer(event) {
    const box = this.drawing.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * this.width;
    const index = Math.floor(((at - LEFT) / (this.width - LEFT - RIGHT)) * this.count);
    this.select(index >= 0 && index < this.count ? index : null);
  }

  onKey(event) {
    const at = this.cursor ?? this.count - 1;
    const target = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: this.count - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.select(Math.min(Math.max(target, 0), this.count - 1));
  }

  /** The index of the newest step with a reading. */
  lastIndex() {
    const last = Math.max(...this.series.map(({ mean }) => mean.findLastIndex((value) => value !== null)));
    return last < 0 ? this.count - 1 : last;
  }

  select(index) {
    this.cursor = index;
    const visibility = index === null ? 'hidden' : 'visible';
    this.line.setAttribute('visibility', visibility);
    if (index !== null) for (const end of ['x1', 'x2']) this.line.setAttribute(end, this.x(index));
    this.series.forEach(({ mean }, number) => {
      const value = index === null ? null : mean[index];
      this.dots[number].setAttribute('visibility', value === null ? 'hidden' : 'visible');
      if (value === null) return;
      this.dots[number].setAttribute('cx', this.x(index));
      this.dots[number].setAttribute('cy', this.y(value));
    });
    this.showReadout(index);
  }

  showReadout(index) {
    const at = index ?? this.lastIndex();
    const values = this.series.map(({ mean }) => this.format(mean[at] ?? null)).join(' / ');
    setText(this.readout, index === null ? values : `${this.timeOf(at)}  ${values}`);
  }

  timeOf(index) {
    const time = this.from + index * this.step;
    return this.isLong ? `${day(time)}, ${clock(time, false)}` : clock(time);
  }

  /** A table of about 60 steps, made when somebody opens it. */
  makeTable() {
    const details = h('details', { class: 'numbers', ontoggle: () => details.querySelector('table') || details.append(this.table()) },
      h('summary', {}, 'Numbers'));
    return details;
  }

  table() {
    const every = Math.max(1, Math.ceil(this.count / 60));
    const rows = [];
    for (let index = 0; index < this.count; index += every) {
      rows.push(h('tr', {}, h('th', { scope: 'row' }, this.timeOf(index)),
        ...this.series.map(({ mean }) => h('td', { class: 'number' }, this.format(mean[index] ?? null)))));
    }
    return h('table', { class: 'table', 'aria-label': this.title },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Time'),
        ...this.series.map(({ title }) => h('th', { scope: 'col', class: 'number' }, title)))), h('tbody', {}, ...rows));
  }
}
