// The entry point: connects the live fleet, the routes and the keyboard shortcuts.

import { announce, announceStates } from './announce.js';
import { setText } from './dom.js';
import { Fleet } from './fleet.js';
import { FleetView } from './fleet-view.js';
import { listenForShortcuts, openHelp } from './keys.js';
import { LiveUpdates } from './live.js';
import { ensureSignedIn } from './sign-in.js';
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

/** The route of the address `#/path?query`. An unknown path is the fleet. */
function matchRoute() {
  const [path, query = ''] = (window.location.hash.slice(1) || '/').split('?');
  for (const [pattern, View, section] of ROUTES) {
    const match = pattern.exec(path);
    if (match) return { View, section, id: match[1] && decodeURIComponent(match[1]), query: new URLSearchParams(query) };
  }
  return { View: FleetView, section: 'fleet', query: new URLSearchParams() };
}

function navigate(isFirst = false) {
  const { View, section, id, query } = matchRoute();
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
  const label = connection.querySelector('.connection-text');
  if (label.textContent === text) return;
  connection.dataset.state = state;
  setText(label, text);
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
await ensureSignedIn(document.querySelector('header.top'));
navigate(true);
new LiveUpdates(fleet, showConnection).start();
