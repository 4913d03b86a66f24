// Sign-in with a token, if the master requires one, and sign-out.

import { session, signIn, signOut } from './api.js';
import { h, newId } from './dom.js';

/** Resolves when the user is signed in or no sign-in is required. Adds the sign-out button to `container`. */
export async function ensureSignedIn(container) {
  let identity;
  try {
    identity = await session();
  } catch (problem) {
    // The page itself shows a master that does not respond.
    if (problem.status !== 401) return;
    identity = await askForToken();
  }
  if (identity.auth_method !== 'session') return;
  container.append(h('button', { type: 'button', class: 'quiet', title: `signed in as ${identity.name}, role ${identity.role}`, onclick: signOutAndReload }, 'Sign out'));
}

async function signOutAndReload() {
  await signOut();
  window.location.reload();
}

function askForToken() {
  const [titleId, fieldId, hintId] = ['sign-in', 'token', 'token-hint'].map(newId);
  const input = h('input', { id: fieldId, type: 'password', autocomplete: 'current-password', spellcheck: 'false', 'aria-describedby': hintId });
  const error = h('p', { class: 'error', role: 'alert' });
  const button = h('button', { type: 'submit', class: 'primary' }, 'Sign in');
  const dialog = h('dialog', { class: 'confirm', 'aria-labelledby': titleId },
    h('form', { method: 'dialog' }, h('h2', { id: titleId }, 'Sign in'),
      h('p', { class: 'field' }, h('label', { for: fieldId }, 'Token'), input,
        h('span', { class: 'hint', id: hintId }, 'fleetpulse token create NAME makes one on the master\u2019s machine')),
      error, h('p', { class: 'buttons' }, button)));
  document.body.append(dialog);
  // Escape must not close it: the page behind it is empty.
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('submit', async (event) => {
      event.preventDefault();
      button.disabled = true;
      try {
        resolve(await signIn(input.value.trim()));
        dialog.remove();
      } catch (problem) {
        error.textContent = problem.message;
        input.select();
      }
      button.disabled = false;
    });
  });
}
