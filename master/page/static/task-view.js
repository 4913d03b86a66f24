// One task: its definition, status, attempts, events and log.

import { taskDetails } from './api.js';
import { announce } from './announce.js';
import { h, setText } from './dom.js';
import { MISSING, age, clock, dateTime, duration, number } from './format.js';
import { LogPanel } from './log.js';
import { LiveTable, link, status, text } from './table.js';
import { confirmCancel, hasEnded, workerHref } from './tasks-view.js';

const POLL_MS = 2000;

/** The view at `#/tasks/ID`. */
export class TaskView {
  constructor({ id }) {
    this.id = id;
    this.title = `Task ${id}`;
    this.heading = h('h1', {}, id);
    this.badge = h('span', { class: 'status' });
    this.why = h('p', { class: 'why-line' });
    this.facts = h('dl', { class: 'facts' });
    this.note = h('p', { class: 'note', role: 'status' });
    this.button = h('button', { type: 'button', class: 'danger', hidden: true, onclick: () => this.cancel() }, 'Cancel the task');
    this.attempts = new LiveTable({ label: 'Attempts', keyOf: (attempt) => attempt.attempt, columns: attemptColumns() });
    this.events = h('ol', { class: 'events' });
    this.log = new LogPanel(id, { onStatus: () => this.load(), onEnd: (end) => this.onEnd(end) });
    this.element = h('article', { class: 'detail' },
      h('header', { class: 'detail-head' }, h('p', { class: 'crumb' }, h('a', { href: '#/tasks' }, 'Tasks')),
        h('div', { class: 'title-line' }, this.heading, this.badge, h('span', { class: 'grow' }), this.button), this.why, this.note),
      this.log.element,
      h('div', { class: 'columns' },
        h('section', { class: 'panel' }, h('h2', {}, 'Definition'), this.facts),
        h('section', { class: 'panel' }, h('h2', {}, 'Events'), this.events)),
      h('section', { class: 'panel' }, h('h2', {}, 'Attempts'), this.attempts.element));
    this.timer = setInterval(() => document.hidden || this.isOver || this.load(), POLL_MS);
    this.load();
  }

  close() {
    this.log.close();
    clearInterval(this.timer);
    this.isClosed = true;
  }

  async cancel() {
    if (await confirmCancel(this.task)) this.load();
  }

  onEnd(end) {
    announce(`task ${this.id}`, end.exit_code === null ? end.status : `${end.status}, exit code ${end.exit_code}`);
    this.load();
  }

  async load() {
    try {
      const task = await taskDetails(this.id);
      if (!this.isClosed) this.show(task);
      setText(this.note, '');
    } catch (problem) {
      setText(this.note, problem.message);
      this.isOver = problem.status === 404;
    }
  }

  show(task) {
    this.task = task;
    this.isOver = hasEnded(task);
    setText(this.heading, task.name || task.task_id);
    setText(this.badge, task.exit_code === null ? task.status : `${task.status} · exit code ${task.exit_code}`);
    this.badge.dataset.status = task.status;
    setText(this.why, task.queue_reason || task.error || '');
    this.button.hidden = this.isOver || Boolean(task.cancel_requested_at);
    this.attempts.show(task.attempts);
    this.showFacts(task);
    this.showEvents(task.events);
  }

  showFacts(task) {
    const rows = [
      ['Id', task.task_id],
      ['Worker', task.worker_id && h('a', { href: workerHref(task.worker_id) }, task.worker_id)],
      ['Image', task.docker_image],
      ['Command', task.command.length ? h('code', {}, task.command.map(quoted).join(' ')) : 'the command of the image'],
      ['Needs', `${number(task.cpu_required)} CPU, ${task.memory_required} MiB, ${task.gpu_required} GPU`],
      ['Priority', String(task.priority)],
      ['Retries', `${task.retries_used} of ${task.max_retries} used`],
      ['Timeout', task.timeout_seconds ? duration(task.timeout_seconds) : 'none'],
      ['Environment', Object.keys(task.env).join(', ') || 'none'],
      ['Confined', [task.read_only === true && 'read-only root', task.user && `user ${task.user}`, task.network && `network ${task.network}`].filter(Boolean).join(', ') || 'as the worker has it'],
      ['Only on', Object.entries(task.constraints).map(([name, values]) => `${name}=${values.join('|')}`).join(', ') || 'any worker'],
      ['Submitted', `${dateTime(task.created_at)} (${age(task.created_at)} ago)`],
      ['Ran for', task.running_at ? duration((task.finished_at ?? Date.now() / 1000) - task.running_at) : MISSING],
    ];
    this.facts.replaceChildren(...rows.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value || MISSING)]));
  }

  showEvents(events) {
    const last = this.events.children.length;
    if (events.length < last) this.events.replaceChildren();
    this.events.append(...events.slice(this.events.children.length).map((event) =>
      h('li', {}, h('time', {}, clock(event.time)), h('span', { class: 'kind' }, event.kind.replaceAll('_', ' ')), h('span', {}, event.message === event.kind ? '' : event.message))));
  }
}

function attemptColumns() {
  return [
    text('Attempt', (attempt) => String(attempt.attempt)),
    status('Status', (attempt) => attempt.status),
    link('Worker', (attempt) => ({ text: attempt.worker_id, href: workerHref(attempt.worker_id) })),
    text('Started', (attempt) => clock(attempt.assigned_at)),
    text('Ran for', (attempt) => (attempt.running_at ? duration((attempt.finished_at ?? Date.now() / 1000) - attempt.running_at) : MISSING), 'number'),
    text('Exit code', (attempt) => (attempt.exit_code === null ? MISSING : String(attempt.exit_code)), 'number'),
    text('How it ended', (attempt) => attempt.error || attempt.reason || '', 'why'),
  ];
}

function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
