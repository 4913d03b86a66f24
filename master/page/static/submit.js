// The form for a new task. The master validates it, and errors are shown at their fields.

import { submit } from './api.js';
import { showDialog } from './dialog.js';
import { h, newId } from './dom.js';

const BASIC_FIELDS = [
  { name: 'docker_image', title: 'Image', kind: 'text', isRequired: true, hint: 'a Docker image: busybox, registry.example/team/app:1.0' },
  { name: 'command', title: 'Command', kind: 'text', hint: 'split into words as a shell does; no shell runs. Empty: the command of the image' },
  { name: 'name', title: 'Name', kind: 'text', hint: 'for people' },
  { name: 'cpu_required', title: 'CPU', kind: 'number', value: '1', hint: 'cores' },
  { name: 'memory_required', title: 'Memory', kind: 'number', value: '512', hint: 'MiB' },
  { name: 'gpu_required', title: 'GPUs', kind: 'number', value: '0', hint: 'whole devices' },
  { name: 'priority', title: 'Priority', kind: 'number', value: '0', hint: '0 to 100, the highest first' },
  { name: 'max_retries', title: 'Retries', kind: 'number', value: '0', hint: 'after a failed attempt' },
  { name: 'timeout_seconds', title: 'Timeout', kind: 'number', hint: 'seconds; empty: none' },
  { name: 'env', title: 'Environment', kind: 'pairs', hint: 'NAME=value, one a line' },
  { name: 'constraints', title: 'Only on workers with', kind: 'pairs', hint: 'label=value, one a line; worker_id is a label' },
];

const BY_POLICY = 'As the policies have it';

/** Most tasks leave these to the policies of the master and of the worker. */
const ADVANCED_FIELDS = [
  { name: 'read_only', title: 'Root filesystem', kind: 'choice', options: [[BY_POLICY], ['Read-only', true], ['Writable', false]], hint: 'of the container' },
  { name: 'network', title: 'Network', kind: 'choice', options: [[BY_POLICY], ['None', 'none'], ['Bridge', 'bridge']], hint: 'none: the loopback device alone' },
  { name: 'user', title: 'User', kind: 'text', hint: 'USER or USER:GROUP, each a number or a name in the image' },
];

/** Opens the form. Calls `onSubmitted(task)` with the new task. */
export function openSubmit(onSubmitted) {
  const form = new SubmitForm((task) => {
    dialog.close();
    onSubmitted(task);
  });
  const dialog = h('dialog', { class: 'submit', 'aria-labelledby': form.titleId }, form.element);
  form.onBack = () => dialog.close();
  return showDialog(dialog);
}

class SubmitForm {
  constructor(onSubmitted) {
    this.onSubmitted = onSubmitted;
    this.titleId = newId('submit');
    // A form that is sent again must not create a second task.
    this.key = idempotencyKey();
    const [basic, advanced] = [BASIC_FIELDS, ADVANCED_FIELDS].map((fields) => fields.map((field) => new Field(field)));
    this.fields = new Map([...basic, ...advanced].map((field) => [field.name, field]));
    this.fold = h('details', { class: 'fold' }, h('summary', {}, 'Advanced'),
      h('div', { class: 'fields' }, ...advanced.map((field) => field.element)));
    this.error = h('p', { class: 'error', role: 'alert' });
    this.button = h('button', { type: 'submit', class: 'primary' }, 'Submit');
    this.element = h('form', { novalidate: true, onsubmit: (event) => this.send(event) },
      h('h2', { id: this.titleId }, 'Submit a task'),
      h('div', { class: 'fields' }, ...basic.map((field) => field.element)), this.fold, this.error,
      h('p', { class: 'buttons' },
        h('button', { type: 'button', class: 'quiet', onclick: () => this.onBack() }, 'Back'), this.button));
  }

  async send(event) {
    event.preventDefault();
    this.showErrors([], '');
    this.button.disabled = true;
    const body = {};
    for (const [name, field] of this.fields) if (field.value !== undefined) body[name] = field.value;
    try {
      this.onSubmitted(await submit(body, this.key));
    } catch (problem) {
      // A refused request created no task, so the next one gets a new key.
      if (problem.status >= 400 && problem.status < 500) this.key = idempotencyKey();
      this.showErrors(problem.errors || [], problem.message);
    }
    this.button.disabled = false;
  }

  showErrors(errors, detail) {
    const others = [];
    const messages = new Map();
    for (const { field, message } of errors) {
      const name = /^\w+/.exec(field)?.[0];
      if (this.fields.has(name)) messages.set(name, [...(messages.get(name) || []), field === name ? message : `${field} ${message}`]);
      else others.push(`${field}: ${message}`);
    }
    for (const [name, field] of this.fields) field.setError((messages.get(name) || []).join('; '));
    if (ADVANCED_FIELDS.some(({ name }) => messages.has(name))) this.fold.open = true;
    this.error.textContent = errors.length ? others.join('; ') : detail;
    [...this.fields.values()].find((field) => messages.has(field.name))?.input.focus();
  }
}

const ELEMENTS = { pairs: 'textarea', choice: 'select' };

class Field {
  constructor({ name, title, kind, value = '', options = [], hint, isRequired = false }) {
    this.name = name;
    this.kind = kind;
    this.options = options;
    const [inputId, hintId, errorId] = [name, `${name}-hint`, `${name}-error`].map(newId);
    this.input = h(ELEMENTS[kind] || 'input', {
      id: inputId, name, 'aria-describedby': `${errorId} ${hintId}`, autocomplete: 'off', spellcheck: 'false',
      'aria-required': isRequired ? 'true' : null, inputmode: kind === 'number' ? 'decimal' : null, rows: kind === 'pairs' ? '2' : null,
    }, ...options.map(([label], index) => h('option', { value: index }, label)));
    if (kind !== 'choice') this.input.value = value;
    this.error = h('span', { class: 'error', id: errorId });
    this.element = h('p', { class: `field ${kind}`, 'data-field': name }, h('label', { for: inputId }, title), this.input,
      this.error, h('span', { class: 'hint', id: hintId }, hint));
  }

  /** The value for the API; undefined for an empty field. An invalid number is sent as text and refused by the master. */
  get value() {
    if (this.kind === 'choice') return this.options[this.input.value][1];
    const text = this.kind === 'pairs' ? this.input.value : this.input.value.trim();
    if (!text.trim()) return undefined;
    if (this.kind === 'text') return text;
    if (this.kind === 'number') return Number.isFinite(Number(text)) ? Number(text) : text;
    return Object.fromEntries(text.split('\n').filter((line) => line.trim()).map((line) => {
      const at = line.indexOf('=');
      return at < 0 ? [line.trim(), ''] : [line.slice(0, at).trim(), line.slice(at + 1)];
    }));
  }

  setError(message) {
    this.error.textContent = message;
    if (message) this.input.setAttribute('aria-invalid', 'true');
    else this.input.removeAttribute('aria-invalid');
  }
}

/** Without `crypto.randomUUID`, which exists only on HTTPS and localhost. */
function idempotencyKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
