// Formats numbers and times for people. A missing reading is a dash, never 0.

export const MISSING = '–';

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const DURATION_UNITS = [[86400, 'd'], [3600, 'h'], [60, 'm'], [1, 's']];

function isMissing(value) {
  return value === null || value === undefined || Number.isNaN(value);
}

/** `value`: 0 to 100. */
export function percent(value, digits = 0) {
  return isMissing(value) ? MISSING : `${value.toFixed(digits)}%`;
}

export function bytes(value) {
  if (isMissing(value)) return MISSING;
  const step = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), BYTE_UNITS.length - 1);
  const amount = value / 1024 ** step;
  return `${step === 0 || amount >= 100 ? Math.round(amount) : Number(amount.toFixed(1))} ${BYTE_UNITS[step]}`;
}

export function number(value, digits = 2) {
  return isMissing(value) ? MISSING : String(Number(value.toFixed(digits)));
}

/** `3 h 5 m`: at most two units. */
export function duration(seconds) {
  if (isMissing(seconds)) return MISSING;
  let rest = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [size, unit] of DURATION_UNITS) {
    if (rest >= size || (unit === 's' && !parts.length)) parts.push(`${Math.floor(rest / size)} ${unit}`);
    else if (parts.length) break;
    rest %= size;
    if (parts.length === 2) break;
  }
  return parts.join(' ');
}

/** Time since `time`, in Unix seconds. */
export function age(time) {
  return isMissing(time) ? MISSING : duration(Date.now() / 1000 - time);
}

/** Time of day of Unix seconds, in the browser's time zone. */
export function clock(time, withSeconds = true) {
  if (isMissing(time)) return MISSING;
  const options = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' };
  return new Date(time * 1000).toLocaleTimeString([], withSeconds ? { ...options, second: '2-digit' } : options);
}

/** Day and short month of Unix seconds. */
export function day(time) {
  return new Date(time * 1000).toLocaleDateString([], { day: 'numeric', month: 'short' });
}

export function dateTime(time) {
  return isMissing(time) ? MISSING : `${new Date(time * 1000).toLocaleDateString([], { dateStyle: 'medium' })}, ${clock(time)}`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
}
