// Changes of state, said once and politely to who hears the page instead of seeing it.

const MAX_NAMES = 3;
const PAUSE_MS = 1000;

const waiting = new Map();
let timer = null;

/** Say that something has become something; what comes within a second is said together. */
export function announce(name, became) {
  waiting.set(became, [...(waiting.get(became) || []), name]);
  timer ??= setTimeout(say, PAUSE_MS);
}

function say() {
  timer = null;
  const sentences = [...waiting].map(([became, names]) =>
    names.length > MAX_NAMES ? `${names.length} of them: ${became}.` : `${names.join(', ')}: ${became}.`);
  waiting.clear();
  document.getElementById('announcements').textContent = sentences.join(' ');
}

/** Hear of the workers whose state becomes another one. */
export function announceStates(fleet) {
  const known = new Map();
  fleet.listen((changed, left) => {
    for (const id of left) {
      known.delete(id);
      announce(`worker ${id}`, 'gone');
    }
    for (const id of changed) {
      const state = fleet.stateOf(fleet.workers.get(id));
      if (known.has(id) && known.get(id) !== state) announce(`worker ${id}`, state);
      known.set(id, state);
    }
  });
}
