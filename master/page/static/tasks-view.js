// The list of tasks, newest first. It is polled while it is visible.

import { cancel, tasks } from './api.js';
import { confirmAction } from './dialog.js';
import { h, setText } from './dom.js';
import { MISSING, age } from './format.js';
import { LiveTable, link, mainLink, status, text } from './table.js';

const POLL_MS = 2000;
const PAGE_SIZE = 100;
const MAX_TASKS = 1000;
const STATUSES = ['queued', 'pending', 'running', 'completed', 'failed', 'cancelled'];
const ENDED = new Set(['completed', 'failed', 'cancelled']);

export const taskHref = (id) => `#/tasks/${encodeURIComponent(id)}`;
export const workerHref = (id) => `#/workers/${encodeURIComponent(id)}`;
export const hasEnded = (task) => ENDED.has(task.status);

/** Cancels the task after a confirmation. Resolves to true when it was cancelled. */
export function confirmCancel(task) {
  return confirmAction({
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
    this.limit = PAGE_SIZE;
    this.table = new LiveTable({ label: 'Tasks', keyOf: (task) => task.task_id, columns: this.columns() });
    this.note = h('p', { class: 'note', role: 'status' }, 'Asking the master…');
    this.more = h('button', { type: 'button', class: 'quiet', hidden: true, onclick: () => this.showMore() }, 'Show older tasks');
    this.element = h('div', { class: 'tasks' }, h('h1', {}, 'Tasks'), this.makeFilters(), this.table.element, this.note, this.more);
    this.timer = setInterval(() => document.hidden || this.load(), POLL_MS);
    this.load();
  }

  close() {
    clearInterval(this.timer);
    this.isClosed = true;
  }

  makeFilters() {
    const all = [[null, 'all'], ...STATUSES.map((name) => [name, name])];
    return h('nav', { class: 'filters', 'aria-label': 'Tasks by status' }, ...all.map(([name, title]) =>
      h('a', { href: name ? `#/tasks?status=${name}` : '#/tasks', 'aria-current': name === this.status ? 'true' : null }, title)));
  }

  columns() {
    return [
      status('Status', (task) => task.status),
      mainLink('Task', (task) => ({ text: task.name || task.docker_image, href: taskHref(task.task_id), below: task.name ? task.docker_image : '' })),
      text('Id', (task) => task.task_id, 'id'),
      link('Worker', (task) => task.worker_id && { text: task.worker_id, href: workerHref(task.worker_id) }),
      text('Why', (task) => task.queue_reason || task.error || '', 'why'),
      text('Age', (task) => age(task.created_at), 'number'),
      text('Exit code', (task) => (task.exit_code === null ? MISSING : String(task.exit_code)), 'number'),
      { title: 'Actions', class: 'actions', draw: (cell, task) => this.drawActions(cell, task) },
    ];
  }

  drawActions(cell, task) {
    const canCancel = !hasEnded(task) && !task.cancel_requested_at;
    if (!canCancel) setText(cell, task.cancel_requested_at && !hasEnded(task) ? 'cancelling' : '');
    else if (!cell.querySelector('button')) {
      cell.replaceChildren(h('button', { type: 'button', class: 'small', 'aria-label': `Cancel ${task.name || task.task_id}`,
        onclick: async () => (await confirmCancel(task)) && this.load() }, 'Cancel'));
    }
  }

  showMore() {
    this.limit = Math.min(this.limit + PAGE_SIZE, MAX_TASKS);
    this.load();
  }

  async load() {
    if (this.isLoading) return;
    this.isLoading = true;
    try {
      const found = await tasks({ limit: this.limit, ...(this.status ? { status: this.status } : {}) });
      if (this.isClosed) return;
      this.table.show(found);
      this.table.element.hidden = !found.length;
      this.more.hidden = found.length < this.limit || this.limit >= MAX_TASKS;
      setText(this.note, found.length ? '' : `There is no ${this.status ? `${this.status} ` : ''}task.`);
    } catch (problem) {
      setText(this.note, `Not up to date: ${problem.message}.`);
    } finally {
      this.isLoading = false;
    }
  }
}
