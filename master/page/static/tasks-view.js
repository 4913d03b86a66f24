// The tasks, newest first, asked again while one looks at them.

import { cancel, tasks } from './api.js';
import { ask } from './ask.js';
import { h, setText } from './dom.js';
import { MISSING, age } from './format.js';
import { LiveTable, linked, named, status, text } from './table.js';

const POLL_MS = 2000;
const PAGE = 100;
const MOST = 1000;
const STATUSES = ['queued', 'pending', 'running', 'completed', 'failed', 'cancelled'];
const ENDED = new Set(['completed', 'failed', 'cancelled']);

export const taskHref = (id) => `#/tasks/${encodeURIComponent(id)}`;
export const workerHref = (id) => `#/workers/${encodeURIComponent(id)}`;
export const hasEnded = (task) => ENDED.has(task.status);

/** Ask whether the task is to be cancelled, and cancel it. */
export function askToCancel(task) {
  return ask({
    title: 'Cancel this task?',
    text: `${task.name || task.docker_image} (${task.task_id}) gets SIGTERM and, after its grace, SIGKILL, if it runs.`,
    action: 'Cancel the task', isDanger: true, act: () => cancel(task.task_id),
  });
}

/** The view at `#/tasks`, `#/tasks?status=queued`. */
export class TasksView {
  constructor({ query }) {
    this.title = 'Tasks';
    this.status = STATUSES.includes(query.get('status')) ? query.get('status') : null;
    this.limit = PAGE;
    this.table = new LiveTable({ label: 'Tasks', keyOf: (task) => task.task_id, columns: this.columns() });
    this.note = h('p', { class: 'note', role: 'status' }, 'Asking the master…');
    this.more = h('button', { type: 'button', class: 'quiet', hidden: true, onclick: () => this.showMore() }, 'Show older tasks');
    this.element = h('div', { class: 'tasks' }, h('h1', {}, 'Tasks'), this.filters(), this.table.element, this.note, this.more);
    this.timer = setInterval(() => document.hidden || this.ask(), POLL_MS);
    this.ask();
  }

  close() {
    clearInterval(this.timer);
    this.isClosed = true;
  }

  filters() {
    const all = [[null, 'all'], ...STATUSES.map((name) => [name, name])];
    return h('nav', { class: 'filters', 'aria-label': 'Tasks by status' }, ...all.map(([name, title]) =>
      h('a', { href: name ? `#/tasks?status=${name}` : '#/tasks', 'aria-current': name === this.status ? 'true' : null }, title)));
  }

  columns() {
    return [
      status('Status', (task) => task.status),
      named('Task', (task) => ({ text: task.name || task.docker_image, href: taskHref(task.task_id), below: task.name ? task.docker_image : '' })),
      text('Id', (task) => task.task_id, 'id'),
      linked('Worker', (task) => task.worker_id && { text: task.worker_id, href: workerHref(task.worker_id) }),
      text('Why', (task) => task.queue_reason || task.error || '', 'why'),
      text('Age', (task) => age(task.created_at), 'number'),
      text('Exit code', (task) => (task.exit_code === null ? MISSING : String(task.exit_code)), 'number'),
      { title: 'Actions', class: 'actions', draw: (cell, task) => this.drawActions(cell, task) },
    ];
  }

  drawActions(cell, task) {
    const isOffered = !hasEnded(task) && !task.cancel_requested_at;
    if (!isOffered) setText(cell, task.cancel_requested_at && !hasEnded(task) ? 'cancelling' : '');
    else if (!cell.querySelector('button')) {
      cell.replaceChildren(h('button', { type: 'button', class: 'small', 'aria-label': `Cancel ${task.name || task.task_id}`,
        onclick: async () => (await askToCancel(task)) && this.ask() }, 'Cancel'));
    }
  }

  showMore() {
    this.limit = Math.min(this.limit + PAGE, MOST);
    this.ask();
  }

  async ask() {
    if (this.isAsking) return;
    this.isAsking = true;
    try {
      const found = await tasks({ limit: this.limit, ...(this.status ? { status: this.status } : {}) });
      if (this.isClosed) return;
      this.table.show(found);
      this.table.element.hidden = !found.length;
      this.more.hidden = found.length < this.limit || this.limit >= MOST;
      setText(this.note, found.length ? '' : `There is no ${this.status ? `${this.status} ` : ''}task.`);
    } catch (problem) {
      setText(this.note, `Not up to date: ${problem.message}.`);
    } finally {
      this.isAsking = false;
    }
  }
}
