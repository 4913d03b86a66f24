// One worker: its identity, resources, readings, history and tasks.

import { drain, forget, undrain, workerDetails, workerTasks } from './api.js';
import { confirmAction } from './dialog.js';
import { h, setText } from './dom.js';
import { MISSING, age, clock, dateTime, duration } from './format.js';
import { HistoryPanel } from './history.js';
import { capacityTable, readingPanels } from './readings.js';
import { LiveTable, mainLink, status, text } from './table.js';
import { taskHref } from './tasks-view.js';

const MIN_INTERVAL_MS = 1000;
const TASKS_POLL_MS = 3000;

/** The view at `#/workers/ID`. */
export class WorkerView {
  constructor({ id, fleet, grafanaUrl }) {
    Object.assign(this, { id, fleet, title: `Worker ${id}`, lastLoad: 0 });
    this.state = h('span', { class: 'state' });
    this.why = h('p', { class: 'why-line' });
    this.note = h('p', { class: 'note', role: 'status' });
    this.facts = h('dl', { class: 'facts' });
    this.capacity = h('div');
    this.readings = h('div', { class: 'readings' });
    this.tasks = new LiveTable({ label: 'Tasks of this worker', keyOf: (item) => `${item.task_id} ${item.attempt}`, columns: taskColumns() });
    this.noTasks = h('p', { class: 'note' }, 'It has had no tasks.');
    this.history = new HistoryPanel(id);
    this.drainButton = h('button', { type: 'button', hidden: true, onclick: () => this.toggleDrain() });
    this.forgetButton = h('button', { type: 'button', class: 'danger', hidden: true, onclick: () => this.forget() }, 'Forget');
    this.element = h('article', { class: 'detail' }, this.makeHead(grafanaUrl),
      h('div', { class: 'columns' }, h('section', { class: 'panel' }, h('h2', {}, 'Identity'), this.facts),
        h('section', { class: 'panel' }, h('h2', {}, 'Resources for tasks'), this.capacity)),
      h('section', { class: 'panel' }, h('h2', {}, 'Readings'), this.readings), this.history.element,
      h('section', { class: 'panel' }, h('h2', {}, 'Tasks'), this.noTasks, this.tasks.element));
    this.unsubscribe = fleet.subscribe((changed, removed) => (changed.has(id) || removed.has(id)) && this.scheduleLoad());
    this.timer = setInterval(() => document.hidden || this.loadTasks(), TASKS_POLL_MS);
    this.scheduleLoad();
    this.loadTasks();
  }

  close() {
    this.unsubscribe();
    clearInterval(this.timer);
    this.history.close();
    this.isClosed = true;
  }

  makeHead(grafanaUrl) {
    const grafana = grafanaUrl && h('a', { class: 'button', target: '_blank', rel: 'noopener noreferrer',
      href: `${grafanaUrl}/d/fleetpulse-worker?var-worker=${encodeURIComponent(this.id)}` }, 'Grafana ↗');
    return h('header', { class: 'detail-head' }, h('p', { class: 'crumb' }, h('a', { href: '#/' }, 'Fleet')),
      h('div', { class: 'title-line' }, h('h1', {}, this.id), this.state, h('span', { class: 'grow' }), grafana,
        this.drainButton, this.forgetButton), this.why, this.note);
  }

  /** Loads the details, at most once per second. */
  scheduleLoad() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    setTimeout(() => this.load(), Math.max(0, this.lastLoad + MIN_INTERVAL_MS - performance.now()));
  }

  async load() {
    this.lastLoad = performance.now();
    try {
      const worker = await workerDetails(this.id);
      if (!this.isClosed) this.show(worker);
      setText(this.note, '');
    } catch (problem) {
      setText(this.note, problem.status === 404 ? `${problem.message}; it may have said goodbye` : problem.message);
      if (problem.status === 404) this.showGone();
    }
    this.isScheduled = false;
  }

  async loadTasks() {
    try {
      const found = await workerTasks(this.id);
      if (this.isClosed) return;
      this.tasks.show(found);
      this.tasks.element.hidden = !found.length;
      this.noTasks.hidden = found.length > 0;
    } catch (problem) {
      if (problem.status !== 404) setText(this.note, problem.message);
    }
  }

  showGone() {
    setText(this.state, 'gone');
    this.state.dataset.state = 'inactive';
    this.drainButton.hidden = true;
    this.forgetButton.hidden = true;
  }

  show(worker) {
    const { tasks, telemetry } = worker;
    this.isDraining = tasks.draining;
    const state = !worker.is_active ? 'inactive' : tasks.draining ? 'draining' : 'active';
    setText(this.state, state);
    this.state.dataset.state = state;
    setText(this.why, [
      worker.heartbeats.refusal === null ? null
        : `The master has refused its heartbeats since ${dateTime(worker.heartbeats.refused_since)}: ${worker.heartbeats.refusal}.`,
      worker.is_active ? null : `Silent for ${age(telemetry.last_update)}; its last readings are below.`,
      tasks.draining ? `Drained${tasks.drain_reason ? `: ${tasks.drain_reason}` : ''}. It gets no new tasks.` : null,
      !tasks.draining && worker.is_active && tasks.refusal ? `It gets no tasks: ${tasks.refusal}.` : null,
      tasks.degraded && !tasks.refusal ? `The next task tries it. Before, it was degraded: ${tasks.degraded_reason}.` : null,
    ].filter(Boolean).join(' '));
    setText(this.drainButton, tasks.draining ? 'Undrain' : 'Drain');
    this.drainButton.hidden = false;
    this.forgetButton.hidden = worker.is_active;
    this.showFacts(worker);
    if (this.hasSelection()) return;
    this.capacity.replaceChildren(capacityTable(worker));
    this.readings.replaceChildren(...readingPanels(telemetry));
  }

  /** Whether text is selected here, which a redraw would unselect. */
  hasSelection() {
    const selection = document.getSelection();
    return !selection.isCollapsed && this.element.contains(selection.anchorNode);
  }

  showFacts(worker) {
    const { received, dropped, missed, refused, clock_skew_seconds: skew } = worker.heartbeats;
    const labels = Object.entries(worker.labels).map(([name, value]) => h('span', { class: 'label' }, `${name}=${value}`));
    const rows = [
      ['Host', worker.hostname], ['Version', worker.version], ['Labels', labels.length ? labels : null],
      ['Booted', worker.boot_time && dateTime(worker.boot_time)],
      ['Up', worker.telemetry.uptime_seconds === null ? null : duration(worker.telemetry.uptime_seconds)],
      ['Registered', dateTime(worker.registered_at)],
      ['Last heard', `${clock(worker.telemetry.last_update)}`],
      ['Heartbeats', `${received} received, ${missed} missed, ${dropped} dropped, ${refused} refused`],
      ['Clock', Math.abs(skew ?? 0) < 1 ? null : `${duration(Math.abs(skew))} ${skew > 0 ? 'ahead' : 'behind'}`],
    ];
    this.facts.replaceChildren(...rows.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, ...[value || MISSING].flat())]));
  }

  async toggleDrain() {
    const isDone = this.isDraining
      ? await confirmAction({ title: `Undrain ${this.id}?`, text: 'It gets tasks again.', action: 'Undrain', act: () => undrain(this.id) })
      : await confirmAction({ title: `Drain ${this.id}?`, text: 'It gets no new tasks; its running tasks continue.', field: 'Reason',
        action: 'Drain', act: (reason) => drain(this.id, reason) });
    if (isDone) this.scheduleLoad();
  }

  async forget() {
    await confirmAction({ title: `Forget ${this.id}?`, text: 'It is taken off the list until it reports again.', action: 'Forget',
      isDanger: true, act: () => forget(this.id) }) && window.location.assign('#/');
  }
}

function taskColumns() {
  return [
    status('Status', (item) => item.status),
    mainLink('Task', (item) => ({ text: item.name || item.docker_image, href: taskHref(item.task_id), below: item.name ? item.docker_image : '' })),
    text('Id', (item) => item.task_id, 'id'),
    text('Attempt', (item) => String(item.attempt), 'number'),
    text('Age', (item) => age(item.assigned_at), 'number'),
    text('Exit code', (item) => (item.exit_code === null ? MISSING : String(item.exit_code)), 'number'),
    text('How it ended', (item) => item.error || item.reason || '', 'why'),
  ];
}
