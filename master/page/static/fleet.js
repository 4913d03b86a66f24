// The workers as this page knows them. Notifies views of changes in batches, at most once every `FRAME_MS`.

const FRAME_MS = 200;

/** States of a worker. */
export const STATES = ['active', 'draining', 'inactive'];

export class Fleet {
  constructor() {
    this.workers = new Map();
    this.isComplete = false;
    this.listeners = new Set();
    this.changed = new Set();
    this.removed = new Set();
    this.isScheduled = false;
    this.lastFlush = 0;
  }

  /** Calls `listener(changed ids, removed ids)` after changes. Returns a function that unsubscribes. */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  stateOf(worker) {
    if (!worker.is_active) return 'inactive';
    return worker.draining ? 'draining' : 'active';
  }

  /** Adds or updates workers from the summaries of `/telemetry/stream`. */
  update(records) {
    for (const record of records) {
      this.workers.set(record.worker_id, record);
      this.changed.add(record.worker_id);
      this.removed.delete(record.worker_id);
    }
    this.schedule();
  }

  remove(id) {
    if (this.workers.delete(id)) {
      this.changed.delete(id);
      this.removed.add(id);
      this.schedule();
    }
  }

  /** Replaces all workers. */
  replace(records) {
    const ids = new Set(records.map((record) => record.worker_id));
    for (const id of [...this.workers.keys()]) if (!ids.has(id)) this.remove(id);
    this.isComplete = true;
    this.update(records);
  }

  counts() {
    const counts = { active: 0, draining: 0, inactive: 0 };
    for (const worker of this.workers.values()) counts[this.stateOf(worker)] += 1;
    return counts;
  }

  schedule() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    const wait = Math.max(0, this.lastFlush + FRAME_MS - performance.now());
    setTimeout(() => requestAnimationFrame(() => this.flush()), wait);
  }

  flush() {
    this.isScheduled = false;
    this.lastFlush = performance.now();
    const { changed, removed } = this;
    this.changed = new Set();
    this.removed = new Set();
    for (const listener of [...this.listeners]) listener(changed, removed);
  }
}
