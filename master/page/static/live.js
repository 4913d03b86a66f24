// Keeps the table of workers live: by the stream, or by asking again and again while there is none.

import { workerEvents, workers } from './api.js';

const FAILURES_BEFORE_POLLING = 3;
const RETRY_MS = 1000;
const POLL_MS = 5000;
const HIDDEN_MS = 10000;

export class Live {
  /** `tell(state, text)`: how the connection fares, `live`, `connecting` or `polling`. */
  constructor(fleet, tell) {
    this.fleet = fleet;
    this.tell = tell;
    this.stream = null;
    this.failures = 0;
    this.timers = new Set();
    document.addEventListener('visibilitychange', () => this.onVisibility());
  }

  /** Begin, or begin anew. A browser has six connections for all of its tabs, so one that nobody sees gives its own back. */
  start() {
    this.stop();
    const arriving = [];
    let isWhole = false;
    this.stream = workerEvents();
    this.stream.addEventListener('reset', () => {
      arriving.length = 0;
      isWhole = false;
    });
    this.stream.addEventListener('snapshot', (event) => {
      const { workers: piece, complete } = JSON.parse(event.data);
      arriving.push(...Object.values(piece));
      if (!complete) return;
      isWhole = true;
      this.fleet.replace(arriving.splice(0));
      this.live();
    });
    this.stream.addEventListener('update', (event) => {
      this.fleet.put(Object.values(JSON.parse(event.data).workers));
      if (isWhole) this.live();
    });
    this.stream.addEventListener('removed', (event) => {
      for (const id of JSON.parse(event.data).worker_ids) this.fleet.remove(id);
    });
    this.stream.addEventListener('open', () => isWhole && this.live());
    this.stream.addEventListener('problem', () => this.fail());
    this.stream.addEventListener('error', () => this.onError());
  }

  stop() {
    this.stream?.close();
    this.stream = null;
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
  }

  after(milliseconds, action) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      action();
    }, milliseconds);
    this.timers.add(timer);
  }

  live() {
    this.failures = 0;
    this.tell('live', 'live');
  }

  /** A browser tries again by itself after a connection that broke, and not after an answer that was none. */
  onError() {
    if (this.stream?.readyState === EventSource.CLOSED) this.fail();
    else this.tell('connecting', 'reconnecting');
  }

  fail() {
    this.failures += 1;
    this.stop();
    if (this.failures >= FAILURES_BEFORE_POLLING) this.poll();
    else this.tell('connecting', 'reconnecting');
    this.after(this.failures < FAILURES_BEFORE_POLLING ? RETRY_MS : RETRY_MS * 10, () => this.start());
  }

  async poll() {
    try {
      const details = await workers();
      if (this.stream) return;
      this.fleet.replace(details.map(summaryOf));
      this.tell('polling', 'every 5 s');
    } catch {
      this.tell('connecting', 'reconnecting');
    }
    if (!this.stream) this.after(POLL_MS, () => this.poll());
  }

  onVisibility() {
    if (document.hidden) this.after(HIDDEN_MS, () => document.hidden && this.stop());
    else if (!this.stream) this.start();
  }
}

/** The short form of the stream, from a worker's details. */
function summaryOf({ worker_id, hostname, is_active, telemetry, tasks }) {
  return {
    worker_id,
    hostname,
    is_active,
    last_update: telemetry.last_update,
    cpu_usage: telemetry.cpu_usage,
    memory_usage: telemetry.memory_usage,
    gpu_usage: telemetry.gpu_usage,
    gpus: telemetry.gpus.map((gpu) => gpu.utilization_percent),
    cpu_cores: telemetry.cpu.logical_cores,
    memory_used_bytes: telemetry.memory.used_bytes,
    memory_size_bytes: telemetry.memory.size_bytes,
    load1: telemetry.load.load1,
    running_tasks_count: telemetry.running_tasks.length,
    accepts_tasks: tasks.accepted,
    draining: tasks.draining,
  };
}
