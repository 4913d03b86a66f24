// Puts the page together: the live table, the views by address, the keyboard.

import { announce, announceStates } from './announce.js';
import { setText } from './dom.js';
import { Fleet } from './fleet.js';
import { FleetView } from './fleet-view.js';
import { listenForShortcuts, openHelp } from './keys.js';
import { Live } from './live.js';
import { signedIn } from './sign-in.js';
import { openSubmit } from './submit.js';
import { TaskView } from './task-view.js';
import { TasksView, taskHref } from './tasks-view.js';
import { WorkerView } from './worker-view.js';

const main = document.getElementById('content');
const connection = document.getElementById('connection');
const { grafanaUrl } = document.body.dataset;
const fleet = new Fleet();
let view = null;

const ROUTES = [
  [/^\/$/, FleetView, 'fleet'],
  [/^\/tasks$/, TasksView, 'tasks'],
  [/^\/tasks\/([^/]+)$/, TaskView, 'tasks'],
  [/^\/workers\/([^/]+)$/, WorkerView, 'fleet'],
];

/** What the address says, `#/path?query`; anything else is the fleet. */
function parse() {
  const [path, query = ''] = (window.location.hash.slice(1) || '/').split('?');
  for (const [pattern, View, section] of ROUTES) {
    const match = pattern.exec(path);
    if (match) return { View, section, id: match[1] && decodeURIComponent(match[1]), query: new URLSearchParams(query) };
  }
  return { View: FleetView, section: 'fleet', query: new URLSearchParams() };
}

function navigate(isFirst = false) {
  const { View, section, id, query } = parse();
  view?.close();
  view = new View({ id, query, fleet, grafanaUrl });
  main.replaceChildren(view.element);
  document.title = `${view.title} · FleetPulse`;
  for (const link of document.querySelectorAll('nav [data-view]')) {
    if (link.dataset.view === section) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (isFirst !== true) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

function showConnection(state, text) {
  const says = connection.querySelector('.connection-text');
  if (says.textContent === text) return;
  connection.dataset.state = state;
  setText(says, text);
  announce('connection', text);
}

function submit() {
  openSubmit((task) => {
    window.location.hash = taskHref(task.task_id);
  });
}

document.getElementById('open-submit').addEventListener('click', submit);
document.getElementById('open-help').addEventListener('click', openHelp);
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
listenForShortcuts({
  '?': openHelp,
  n: submit,
  '/': () => document.querySelector('[data-shortcut="search"]')?.focus(),
  'g f': () => { window.location.hash = '#/'; },
  'g t': () => { window.location.hash = '#/tasks'; },
});
window.addEventListener('hashchange', navigate);
announceStates(fleet);
await signedIn(document.querySelector('header.top'));
navigate(true);
new Live(fleet, showConnection).start();
