// Modal dialogs.

import { h, newId } from './dom.js';

/**
 * Asks for confirmation and then calls `act(text of the field)`. An error of `act` is shown and leaves the dialog open.
 * Resolves to true when `act` succeeded.
 */
export function confirmAction({ title, text, action, field = null, isDanger = false, act }) {
  const [titleId, fieldId] = ['confirm', 'confirm-field'].map(newId);
  const input = field && h('input', { id: fieldId, type: 'text', maxlength: '256', autocomplete: 'off' });
  const error = h('p', { class: 'error', role: 'alert' });
  const confirm = h('button', { type: 'submit', class: isDanger ? 'danger' : 'primary' }, action);
  const dialog = h('dialog', { class: 'confirm', 'aria-labelledby': titleId },
    h('form', { method: 'dialog' }, h('h2', { id: titleId }, title), h('p', {}, text),
      field && h('p', { class: 'field' }, h('label', { for: fieldId }, field), input), error,
      h('p', { class: 'buttons' }, h('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Back'), confirm)));
  let isDone = false;
  dialog.addEventListener('submit', async (event) => {
    event.preventDefault();
    confirm.disabled = true;
    try {
      await act(input?.value ?? '');
      isDone = true;
      dialog.close();
    } catch (problem) {
      error.textContent = problem.message;
    }
    confirm.disabled = false;
  });
  return showDialog(dialog).then(() => isDone);
}

/** Shows a modal dialog. Resolves when it is closed and removed; the focus returns to where it was. */
export function showDialog(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve();
    });
  });
}
