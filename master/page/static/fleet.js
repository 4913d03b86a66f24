// The live table of workers, as this page knows it. Views hear of what changed, together, once in a frame at most.

const FRAME_MS = 200;

/** What a worker is, in one word. */
export const STATES = ['active', 'draining', 'inactive'];

export class Fleet {
  constructor() {
    this.workers = new Map();
    this.isComplete = false;
    this.listeners = new Set();
    this.changed = new Set();
    this.left = new Set();
    this.isScheduled = false;
    this.lastFlush = 0;
  }

  /** Call `listener(changed ids, ids that left)` whenever something changed; the answer ends that. */
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  stateOf(worker) {
    if (!worker.is_active) return 'inactive';
    return worker.draining ? 'draining' : 'active';
  }

  /** Take in the short forms of `/telemetry/stream`. */
  put(records) {
    for (const record of records) {
      this.workers.set(record.worker_id, record);
      this.changed.add(record.worker_id);
      this.left.delete(record.worker_id);
    }
    this.schedule();
  }

  remove(id) {
    if (this.workers.delete(id)) {
      this.changed.delete(id);
      this.left.add(id);
      this.schedule();
    }
  }

  /** These are all that there are. */
  replace(records) {
    const ids = new Set(records.map((record) => record.worker_id));
    for (const id of [...this.workers.keys()]) if (!ids.has(id)) this.remove(id);
    this.isComplete = true;
    this.put(records);
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
    const { changed, left } = this;
    this.changed = new Set();
    this.left = new Set();
    for (const listener of [...this.listeners]) listener(changed, left);
  }
}
