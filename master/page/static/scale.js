// The arithmetic of plots: ticks of axes, and SVG paths through readings with gaps.

const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440];

/** Round values from 0 to at least `highest`. With base 1024 they are round in units of bytes. */
export function ticks(highest, base = 10) {
  const top = highest > 0 ? highest : 1;
  const scale = base === 1024 ? 1024 ** Math.floor(Math.log(top) / Math.log(1024)) : 1;
  const rough = top / scale / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999) * scale;
  return Array.from({ length: Math.ceil(top / step - 1e-9) + 1 }, (_, index) => index * step);
}

/** At most `most` round times between two Unix times, in the browser's time zone. */
export function timeTicks(from, to, most) {
  const minutes = MINUTES.find((size) => (to - from) / 60 / size <= most) ?? MINUTES.at(-1);
  const size = minutes * 60;
  const shift = new Date(from * 1000).getTimezoneOffset() * 60;
  const times = [];
  for (let time = Math.ceil((from - shift) / size) * size + shift; time <= to; time += size) times.push(time);
  return times;
}

/** SVG paths: `lines` through the means, `areas` between min and max. Null values are gaps in both. */
export function pathsOf({ mean, min, max }, x, y) {
  const lines = [];
  const areas = [];
  for (const [start, end] of ranges(mean)) {
    const along = (values, from, to, by) => {
      const points = [];
      for (let index = from; index !== to; index += by) points.push(`${round(x(index))},${round(y(values[index]))}`);
      return points;
    };
    const points = along(mean, start, end, 1);
    // A single reading is a dot: a line without length and with round ends.
    lines.push(`M${points.join('L')}${points.length === 1 ? 'h0.01' : ''}`);
    if (min && max && end - start > 1) areas.push(`M${[...along(max, start, end, 1), ...along(min, end - 1, start - 1, -1)].join('L')}Z`);
  }
  return { lines: lines.join(''), areas: areas.join('') };
}

/** The ranges [start, end) of consecutive readings. */
export function ranges(values) {
  const found = [];
  let start = null;
  for (let index = 0; index <= values.length; index += 1) {
    const isPresent = index < values.length && values[index] !== null && values[index] !== undefined;
    if (isPresent && start === null) start = index;
    if (!isPresent && start !== null) {
      found.push([start, index]);
      start = null;
    }
  }
  return found;
}

function round(value) {
  return Math.round(value * 10) / 10;
}
