// Keyboard shortcuts, and the dialog that lists them.

import { showDialog } from './dialog.js';
import { h } from './dom.js';

const SHORTCUTS = [
  ['?', 'This list'],
  ['g then f', 'The fleet'],
  ['g then t', 'The tasks'],
  ['n', 'Submit a task'],
  ['/', 'Find a worker'],
  ['← ↑ → ↓', 'From worker to worker; along a plot'],
  ['Home, End', 'The first, the last'],
  ['Enter', 'Open what has the focus'],
  ['Esc', 'Close a dialog'],
];
const CHORD_MS = 1500;

/** `actions` by key, or by `g` and a key. Keys that are typed into a field are ignored. */
export function listenForShortcuts(actions) {
  let chordUntil = 0;
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (event.target.closest('input, select, textarea')) return;
    const key = event.timeStamp < chordUntil ? `g ${event.key}` : event.key;
    chordUntil = event.key === 'g' ? event.timeStamp + CHORD_MS : 0;
    if (!actions[key]) return;
    event.preventDefault();
    actions[key]();
  });
}

export function openHelp() {
  const dialog = h('dialog', { class: 'help', 'aria-labelledby': 'help-title' },
    h('form', { method: 'dialog' }, h('h2', { id: 'help-title' }, 'Keyboard'),
      h('dl', { class: 'keys' }, ...SHORTCUTS.flatMap(([key, description]) =>
        [h('dt', {}, ...key.split(' ').map((word) => (word === 'then' ? ' then ' : h('kbd', {}, word.replace(',', ''))))), h('dd', {}, description)])),
      h('p', { class: 'buttons' }, h('button', { type: 'submit', class: 'primary' }, 'Close'))));
  return showDialog(dialog);
}
