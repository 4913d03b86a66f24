// The live log of a task. It keeps the last lines, and does not scroll while the reader has scrolled up.

import { logEvents, logPath } from './api.js';
import { h, setText } from './dom.js';

const MAX_LINES = 5000;
const MAX_CHARACTERS = 2_000_000;
const CHUNK_LINES = 200;
const NEAR_PX = 24;
const HTTP_GONE = 410;
const HTTP_UNAVAILABLE = 503;

/** `onStatus(status)` receives each status of the task, `onEnd(end)` the last event. */
export class LogPanel {
  constructor(taskId, { onStatus, onEnd }) {
    this.taskId = taskId;
    this.handlers = { onStatus, onEnd };
    this.chunks = [];
    this.pending = '';
    this.isFollowing = true;
    this.isCut = false;
    this.note = h('span', { class: 'note', role: 'status' }, 'connecting');
    this.cut = h('p', { class: 'cut', hidden: true }, 'Earlier lines are not shown here. ',
      h('a', { href: logPath(taskId), target: '_blank', rel: 'noopener' }, 'The whole log'));
    this.asText = h('a', { href: logPath(taskId), target: '_blank', rel: 'noopener' }, 'as text');
    this.lines = h('pre', { class: 'lines' });
    this.scroller = h('div', { class: 'log', tabindex: '0', role: 'region', 'aria-label': 'Log',
      onscroll: () => this.onScroll() }, this.cut, this.lines);
    this.jump = h('button', { type: 'button', class: 'jump', hidden: true, onclick: () => this.follow() }, 'Follow the newest ↓');
    this.element = h('section', { class: 'log-panel', 'aria-label': 'Log of the task' },
      h('p', { class: 'log-head' }, h('span', { class: 'log-title' }, 'Log'), this.note,
        this.asText),
      h('div', { class: 'log-frame' }, this.scroller, this.jump));
    this.open();
  }

  close() {
    this.stream.close();
    cancelAnimationFrame(this.frame);
  }

  open() {
    const actions = {
      message: (piece) => this.onPiece(piece),
      status: (status) => this.handlers.onStatus(status),
      attempt: (attempt) => this.onAttempt(attempt),
      end: (end) => this.finish(end.exit_code === null ? end.status : `${end.status}, exit code ${end.exit_code}`, end),
      // A master that stops ends the stream with 503; the reader reconnects.
      problem: ({ status, detail }) => status === HTTP_UNAVAILABLE || this.finish(detail),
    };
    this.stream = logEvents(this.taskId, MAX_LINES, {
      onOpen: () => setText(this.note, 'follows'),
      onEvent: (kind, data) => actions[kind]?.(data),
      onPause: (problem, seconds) => this.onPause(problem, seconds),
      onRefused: (problem) => this.onRefused(problem),
    });
  }

  onPause(problem, seconds) {
    setText(this.note, problem?.status ? `${problem.message}; trying again in ${seconds} s` : 'reconnecting');
  }

  onRefused(problem) {
    if (problem.status !== HTTP_GONE) {
      this.finish(problem.message);
      return;
    }
    this.finish('deleted');
    this.lines.textContent = '';
    this.scroller.replaceChildren(h('p', { class: 'gone' }, `There is no log: ${problem.message}. `
      + 'The definition, events and attempts of the task are kept for longer.'));
    this.asText.hidden = true;
  }

  finish(text, end = null) {
    this.stream.close();
    setText(this.note, text);
    if (end) this.handlers.onEnd(end);
  }

  onAttempt({ attempt, worker_id: worker }) {
    if (attempt > 1) this.add(`\n── attempt ${attempt} on ${worker} ──\n`);
  }

  onPiece({ offset, logs }) {
    if (!this.hasText && offset > 0) this.showCut();
    this.hasText = true;
    this.add(logs);
  }

  add(text) {
    this.pending += text;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    // Removes terminal escape sequences; the linked text keeps them.
    const text = this.pending.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '').replace(/\r\n/g, '\n');
    this.pending = '';
    for (const piece of piecesOf(text)) this.append(piece);
    this.trim();
    if (this.isFollowing) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  append(piece) {
    const last = this.chunks.at(-1);
    if (last && last.lines + piece.lines <= CHUNK_LINES) {
      last.node.appendData(piece.text);
      last.lines += piece.lines;
      last.characters += piece.text.length;
      return;
    }
    const node = document.createTextNode(piece.text);
    this.lines.append(h('span', {}, node));
    this.chunks.push({ node, lines: piece.lines, characters: piece.text.length });
  }

  /** Removes the oldest chunks beyond the limits. The browser keeps the visible lines in place. */
  trim() {
    const sum = (name) => this.chunks.reduce((total, chunk) => total + chunk[name], 0);
    let [lines, characters] = [sum('lines'), sum('characters')];
    while (this.chunks.length > 1 && (lines > MAX_LINES || characters > MAX_CHARACTERS)) {
      const oldest = this.chunks.shift();
      lines -= oldest.lines;
      characters -= oldest.characters;
      oldest.node.parentNode.remove();
      this.showCut();
    }
  }

  showCut() {
    this.cut.hidden = false;
  }

  onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.isFollowing = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.jump.hidden = this.isFollowing;
  }

  follow() {
    this.isFollowing = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.scroller.focus();
  }
}

/** Splits text into pieces of at most `CHUNK_LINES` lines. Very long lines are split, too. */
function* piecesOf(text) {
  let start = 0;
  while (start < text.length) {
    let [end, lines] = [start, 0];
    while (lines < CHUNK_LINES && end < text.length && end - start < MAX_CHARACTERS / 50) {
      const next = text.indexOf('\n', end) + 1 || text.length;
      end = Math.min(next, start + MAX_CHARACTERS / 50);
      lines += 1;
    }
    yield { text: text.slice(start, end), lines };
    start = end;
  }
}
