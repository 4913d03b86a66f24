// Who looks at the page: asks for a token where one is wanted, and offers to sign out.

import { session, signIn, signOut } from './api.js';
import { h, newId } from './dom.js';

/** Comes back when somebody is signed in, or need not be. `place` is where the way out is offered. */
export async function signedIn(place) {
  let identity;
  try {
    identity = await session();
  } catch (problem) {
    // Where the master does not answer, the page says so by itself.
    if (problem.status !== 401) return;
    identity = await askForToken();
  }
  if (identity.auth_method !== 'session') return;
  place.append(h('button', { type: 'button', class: 'quiet', title: `signed in as ${identity.name}, role ${identity.role}`, onclick: leave }, 'Sign out'));
}

async function leave() {
  await signOut();
  window.location.reload();
}

function askForToken() {
  const [titleId, fieldId, hintId] = ['sign-in', 'token', 'token-hint'].map(newId);
  const input = h('input', { id: fieldId, type: 'password', autocomplete: 'current-password', spellcheck: 'false', 'aria-describedby': hintId });
  const error = h('p', { class: 'error', role: 'alert' });
  const button = h('button', { type: 'submit', class: 'primary' }, 'Sign in');
  const dialog = h('dialog', { class: 'ask', 'aria-labelledby': titleId },
    h('form', { method: 'dialog' }, h('h2', { id: titleId }, 'Sign in'),
      h('p', { class: 'field' }, h('label', { for: fieldId }, 'Token'), input,
        h('span', { class: 'hint', id: hintId }, 'fleetpulse token create NAME makes one on the master\u2019s machine')),
      error, h('p', { class: 'buttons' }, button)));
  document.body.append(dialog);
  // There is nothing to go back to.
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
