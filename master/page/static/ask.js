// Questions in a dialog, before something is done that matters.

import { h, newId } from './dom.js';

/** Ask; do `act(what was typed)` on yes, and stay open with the reason when that fails. True when it was done. */
export function ask({ title, text, action, field = null, isDanger = false, act }) {
  const [titleId, fieldId] = ['ask', 'ask-field'].map(newId);
  const input = field && h('input', { id: fieldId, type: 'text', maxlength: '256', autocomplete: 'off' });
  const error = h('p', { class: 'error', role: 'alert' });
  const yes = h('button', { type: 'submit', class: isDanger ? 'danger' : 'primary' }, action);
  const dialog = h('dialog', { class: 'ask', 'aria-labelledby': titleId },
    h('form', { method: 'dialog' }, h('h2', { id: titleId }, title), h('p', {}, text),
      field && h('p', { class: 'field' }, h('label', { for: fieldId }, field), input), error,
      h('p', { class: 'buttons' }, h('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Back'), yes)));
  let isDone = false;
  dialog.addEventListener('submit', async (event) => {
    event.preventDefault();
    yes.disabled = true;
    try {
      await act(input?.value ?? '');
      isDone = true;
      dialog.close();
    } catch (problem) {
      error.textContent = problem.message;
    }
    yes.disabled = false;
  });
  return show(dialog).then(() => isDone);
}

/** Open a dialog; when it closes, it is gone, and the focus is back where it was. */
export function show(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve();
    });
  });
}
