// The arithmetic of plots: where axes have their marks, and the paths through readings with gaps.

const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440];

/** Round values from 0 up to at least `highest`; by powers of 1024 for bytes. */
export function ticks(highest, base = 10) {
  const top = highest > 0 ? highest : 1;
  const scale = base === 1024 ? 1024 ** Math.floor(Math.log(top) / Math.log(1024)) : 1;
  const rough = top / scale / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999) * scale;
  return Array.from({ length: Math.ceil(top / step - 1e-9) + 1 }, (_, index) => index * step);
}

/** Whole minutes and hours of the reader's day between two Unix times, `most` of them. */
export function timeTicks(from, to, most) {
  const minutes = MINUTES.find((size) => (to - from) / 60 / size <= most) ?? MINUTES.at(-1);
  const size = minutes * 60;
  const shift = new Date(from * 1000).getTimezoneOffset() * 60;
  const times = [];
  for (let time = Math.ceil((from - shift) / size) * size + shift; time <= to; time += size) times.push(time);
  return times;
}

/** SVG paths: `lines` through the means, `areas` between lowest and highest, both broken where there is null. */
export function pathsOf({ mean, min, max }, x, y) {
  const lines = [];
  const areas = [];
  for (const [start, end] of stretches(mean)) {
    const along = (values, from, to, by) => {
      const points = [];
      for (let index = from; index !== to; index += by) points.push(`${round(x(index))},${round(y(values[index]))}`);
      return points;
    };
    const points = along(mean, start, end, 1);
    // A reading alone is a dot: a line of no length with round ends.
    lines.push(`M${points.join('L')}${points.length === 1 ? 'h0.01' : ''}`);
    if (min && max && end - start > 1) areas.push(`M${[...along(max, start, end, 1), ...along(min, end - 1, start - 1, -1)].join('L')}Z`);
  }
  return { lines: lines.join(''), areas: areas.join('') };
}

/** From where to where, without it, there are readings. */
export function stretches(values) {
  const found = [];
  let start = null;
  for (let index = 0; index <= values.length; index += 1) {
    const isThere = index < values.length && values[index] !== null && values[index] !== undefined;
    if (isThere && start === null) start = index;
    if (!isThere && start !== null) {
      found.push([start, index]);
      start = null;
    }
  }
  return found;
}

function round(value) {
  return Math.round(value * 10) / 10;
}
