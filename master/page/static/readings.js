// The readings of a worker by device, and its resources for tasks.

import { h } from './dom.js';
import { MISSING, bytes, duration, number, percent } from './format.js';

/** Readings that are shown in a specific place. Any other number of a record is listed by its name. */
const SHOWN_ELSEWHERE = new Set(['usage_percent', 'logical_cores', 'used_bytes', 'size_bytes', 'swap_used_bytes', 'swap_size_bytes',
  'load1', 'load5', 'load15', 'cpu_usage', 'memory_usage', 'gpu_usage', 'uptime_seconds', 'last_update']);

/** Capacity, allocated and available resources. */
export function capacityTable({ capacity, allocated, available }) {
  const rows = [
    ['CPU cores', capacity.cpu_cores, allocated.cpu_cores, available.cpu_cores, number],
    ['Memory', capacity.memory_bytes, allocated.memory_bytes, available.memory_bytes, bytes],
    ['GPUs', capacity.gpu_count, allocated.gpu_count, available.gpu_count, number],
  ];
  return table('Resources for tasks', ['', 'Capacity', 'Allocated', 'Available'], rows.map(([name, ...values]) => {
    const format = values.pop();
    return [name, ...values.map((value) => format(value))];
  }));
}

/** A section for each kind of reading that the machine has. */
export function readingPanels(record) {
  const { cpu, memory, load } = record;
  return [
    section('Processor and memory', meters([
      ['CPU', record.cpu_usage, cpu.logical_cores ? `${percent(record.cpu_usage, 1)} of ${cpu.logical_cores} cores` : percent(record.cpu_usage, 1), 'cpu'],
      ['Memory', record.memory_usage, `${bytes(memory.used_bytes)} of ${bytes(memory.size_bytes)}`, 'memory'],
      memory.swap_size_bytes ? ['Swap', percentOf(memory.swap_used_bytes, memory.swap_size_bytes), `${bytes(memory.swap_used_bytes)} of ${bytes(memory.swap_size_bytes)}`, 'memory'] : null,
    ]), h('p', { class: 'aside' }, `Load ${number(load.load1)}, ${number(load.load5)}, ${number(load.load15)} over 1, 5 and 15 minutes`), otherReadings(record)),
    record.gpus.length ? section('GPUs', ...record.gpus.map(gpu)) : null,
    record.filesystems.length ? section('Filesystems', meters(record.filesystems.map((item) => [item.mountpoint,
      percentOf(item.used_bytes, spaceOf(item)), filesystemText(item), 'memory']))) : null,
    record.disk_devices.length ? section('Disks since boot', table('Disks', ['', 'Read', 'Written'],
      record.disk_devices.map((item) => [[item.device, item.size_bytes && bytes(item.size_bytes), item.state === 'error' && item.state_reason].filter(Boolean).join(', '), bytes(item.read_bytes), bytes(item.written_bytes)]))) : null,
    pressure(record.pressure),
    record.sensors?.length ? section('Temperatures and fans', table('Temperatures and fans', ['', 'Value'],
      record.sensors.map((item) => [item.sensor, item.temperature_celsius === null ? `${number(item.fan_rpm, 0)} rpm` : `${number(item.temperature_celsius, 0)} °C`]))) : null,
    record.network_interfaces.length ? section('Network since boot', table('Network', ['', 'Received', 'Sent'],
      record.network_interfaces.map((item) => [item.interface, bytes(item.received_bytes), bytes(item.transmitted_bytes)]))) : null,
    record.running_tasks.length ? section('Containers', table('Containers', ['', 'CPU', 'Memory'],
      record.running_tasks.map((item) => [item.task_id, percent(item.cpu_usage, 1), bytes(item.memory_used_bytes)]))) : null,
    customMetrics(record.custom),
    failedCollectors(record.collectors),
    record.left_out?.length ? section('Not reported, because there are too many', h('ul', { class: 'plain' },
      ...record.left_out.map((item) => h('li', {}, `${item.collector}: ${number(item.count, 0)} more`)))) : null,
  ].filter(Boolean);
}

function pressure(readings) {
  const rows = [['CPU', 'cpu_waiting'], ['Memory', 'memory_waiting'], ['Memory, all', 'memory_stalled'], ['I/O', 'io_waiting'], ['I/O, all', 'io_stalled']]
    .map(([name, key]) => [name, readings?.[`${key}_percent`]]).filter(([, share]) => typeof share === 'number');
  return rows.length ? section('Waiting, over 10 s', meters(rows.map(([name, share]) => [name, share, percent(share, 1), 'memory']))) : null;
}

/** What is in use and available, as df counts: what is reserved for root is neither. */
function spaceOf({ used_bytes: used, available_bytes: available, size_bytes: size }) {
  return used === null || (available ?? null) === null ? size : used + available;
}

function filesystemText(item) {
  const space = item.size_bytes === null ? null : `${bytes(item.used_bytes)} of ${bytes(item.size_bytes)}`;
  const trouble = { error: 'cannot be read', read_only: 'read-only' }[item.state];
  return [space, trouble && `${trouble}: ${item.state_reason}`, space || trouble ? null : item.fstype].filter(Boolean).join(', ');
}

function otherReadings({ cpu, memory, load, ...rest }) {
  const rows = [['CPU ', cpu], ['Memory ', memory], ['Load ', load], ['', rest]].flatMap(([group, readings]) => Object.entries(readings)
    .filter(([name, value]) => typeof value === 'number' && !SHOWN_ELSEWHERE.has(name))
    .map(([name, value]) => [group + name.replace(/_(bytes|seconds|percent)$/, '').replaceAll('_', ' '), withUnit(name, value)]));
  return rows.length ? table('Other readings', ['', 'Value'], rows) : null;
}

function withUnit(name, value) {
  if (name.endsWith('_bytes')) return bytes(value);
  if (name.endsWith('_seconds')) return duration(value);
  return name.endsWith('_percent') ? percent(value, 1) : number(value);
}

function gpu(item) {
  const facts = [item.temperature_celsius === null ? null : `${number(item.temperature_celsius, 0)} °C`,
    item.power_watts === null ? null : `${number(item.power_watts, 0)}${item.power_limit_watts ? ` of ${number(item.power_limit_watts, 0)}` : ''} W`,
    item.is_throttled ? `throttled: ${item.throttle_reasons.join(', ')}` : null, item.last_xid ? `Xid ${item.last_xid}` : null].filter(Boolean);
  if (item.state === 'error' || item.state === 'lost') {
    return h('div', { class: 'gpu-part' }, h('p', { class: 'gpu-name' }, `${item.index}: ${item.name || item.uuid}`, h('span', {}, item.state)),
      h('p', { class: 'aside' }, item.state_reason));
  }
  return h('div', { class: 'gpu-part' }, h('p', { class: 'gpu-name' }, `${item.index}: ${item.name || item.uuid}`, h('span', {}, facts.join(', '))),
    meters([['Use', item.utilization_percent, percent(item.utilization_percent), 'gpu'],
      ['Memory', percentOf(item.memory_used_bytes, item.memory_size_bytes), `${bytes(item.memory_used_bytes)} of ${bytes(item.memory_size_bytes)}`, 'memory'],
      ...item.instances.map((part) => [part.name || part.uuid, percentOf(part.memory_used_bytes, part.memory_size_bytes),
        `${bytes(part.memory_used_bytes)} of ${bytes(part.memory_size_bytes)}`, 'memory'])]),
    holders(item));
}

/** Who holds a GPU. */
function holders({ index, processes, process_count: count }) {
  if (!processes.length) return count === 0 ? h('p', { class: 'aside' }, 'No process holds it.') : null;
  const rows = processes.map((item) => [`${item.command || MISSING} (${item.pid})`, item.user || MISSING, bytes(item.memory_used_bytes)]);
  const more = count > processes.length ? h('p', { class: 'aside' }, `${count - processes.length} more`) : null;
  return [table(`Processes on GPU ${index}`, ['', 'User', 'Memory'], rows), more];
}

function customMetrics(samples) {
  if (!samples?.length) return null;
  const rows = samples.map(({ name, labels, value }) => [seriesName(name, labels), number(value, 6)]);
  return section('Custom metrics', table('Custom metrics', ['', 'Value'], rows));
}

function seriesName(name, labels) {
  const pairs = Object.entries(labels || {}).map(([label, value]) => `${label}="${value}"`);
  return pairs.length ? `${name}{${pairs.join(', ')}}` : name;
}

function failedCollectors(items) {
  const failed = items.filter((item) => !item.success);
  if (!failed.length) return null;
  return section('Failed collectors', h('ul', { class: 'plain' }, ...failed.map((item) => h('li', {}, `${item.collector}: ${item.error || 'failed'}`))));
}

function section(title, ...children) {
  return h('section', { class: 'part' }, h('h3', {}, title), ...children);
}

function meters(rows) {
  return h('dl', { class: 'meters' }, ...rows.filter(Boolean).flatMap(([name, value, text, kind]) => {
    const isMissing = value === null || value === undefined;
    const bar = h('span', { class: `bar-track ${kind}`, 'aria-hidden': 'true' });
    bar.style.setProperty('--value', isMissing ? 0 : value);
    return [h('dt', {}, name), h('dd', {}, isMissing ? null : bar, h('span', { class: 'meter-text' }, isMissing ? MISSING : text))];
  }));
}

function table(label, heads, rows) {
  return h('table', { class: 'table plain-table', 'aria-label': label },
    h('thead', {}, h('tr', {}, ...heads.map((title, index) => (title ? h('th', { scope: 'col', class: index ? 'number' : null }, title) : h('td'))))),
    h('tbody', {}, ...rows.map(([name, ...values]) => h('tr', {}, h('th', { scope: 'row' }, name),
      ...values.map((value) => h('td', { class: 'number' }, value))))));
}

function percentOf(used, total) {
  return used === null || !total ? null : (100 * used) / total;
}
