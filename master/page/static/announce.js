// Announcements of changed states for screen readers, through a polite live region.

const MAX_NAMES = 3;
const BATCH_MS = 1000;

const pending = new Map();
let timer = null;

/** Announces the new state of something. Everything that comes within a second is announced together. */
export function announce(name, newState) {
  pending.set(newState, [...(pending.get(newState) || []), name]);
  timer ??= setTimeout(flush, BATCH_MS);
}

function flush() {
  timer = null;
  const sentences = [...pending].map(([newState, names]) =>
    names.length > MAX_NAMES ? `${names.length} of them: ${newState}.` : `${names.join(', ')}: ${newState}.`);
  pending.clear();
  document.getElementById('announcements').textContent = sentences.join(' ');
}

/** Announces workers that change their state or are removed. */
export function announceStates(fleet) {
  const known = new Map();
  fleet.subscribe((changed, removed) => {
    for (const id of removed) {
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
