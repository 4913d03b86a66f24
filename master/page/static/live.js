// Keeps the fleet up to date: from the event stream, or by polling while no stream is available.

import { workerEvents, workers } from './api.js';

const FAILURES_BEFORE_POLLING = 3;
const RETRY_MS = 1000;
const POLL_MS = 5000;
const HIDDEN_MS = 10000;

export class LiveUpdates {
  /** `onState(state, text)` receives the state of the connection: `live`, `connecting` or `polling`. */
  constructor(fleet, onState) {
    this.fleet = fleet;
    this.onState = onState;
    this.stream = null;
    this.failures = 0;
    this.timers = new Set();
    document.addEventListener('visibilitychange', () => this.onVisibility());
  }

  /** Connects, or reconnects. A browser allows six connections to a site in all tabs, so a hidden tab closes its own. */
  start() {
    this.stop();
    const snapshot = [];
    let isComplete = false;
    this.stream = workerEvents();
    this.stream.addEventListener('reset', () => {
      snapshot.length = 0;
      isComplete = false;
    });
    this.stream.addEventListener('snapshot', (event) => {
      const { workers: part, complete } = JSON.parse(event.data);
      snapshot.push(...Object.values(part));
      if (!complete) return;
      isComplete = true;
      this.fleet.replace(snapshot.splice(0));
      this.setLive();
    });
    this.stream.addEventListener('update', (event) => {
      this.fleet.update(Object.values(JSON.parse(event.data).workers));
      if (isComplete) this.setLive();
    });
    this.stream.addEventListener('removed', (event) => {
      for (const id of JSON.parse(event.data).worker_ids) this.fleet.remove(id);
    });
    this.stream.addEventListener('open', () => isComplete && this.setLive());
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

  setLive() {
    this.failures = 0;
    this.onState('live', 'live');
  }

  /** A browser reconnects by itself after a broken connection, but not after a failed request. */
  onError() {
    if (this.stream?.readyState === EventSource.CLOSED) this.fail();
    else this.onState('connecting', 'reconnecting');
  }

  fail() {
    this.failures += 1;
    this.stop();
    if (this.failures >= FAILURES_BEFORE_POLLING) this.poll();
    else this.onState('connecting', 'reconnecting');
    this.after(this.failures < FAILURES_BEFORE_POLLING ? RETRY_MS : RETRY_MS * 10, () => this.start());
  }

  async poll() {
    try {
      const details = await workers();
      if (this.stream) return;
      this.fleet.replace(details.map(summaryOf));
      this.onState('polling', 'every 5 s');
    } catch {
      this.onState('connecting', 'reconnecting');
    }
    if (!this.stream) this.after(POLL_MS, () => this.poll());
  }

  onVisibility() {
    if (document.hidden) this.after(HIDDEN_MS, () => document.hidden && this.stop());
    else if (!this.stream) this.start();
  }
}

/** The summary of the stream, from a worker's details. */
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
