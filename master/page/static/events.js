// Server-sent events of one address, to the end. An EventSource does not tell why it was refused, nor heed Retry-After.

const RETRY_MS = 2000;
const LATER = new Set([0, 429, 502, 503, 504]);

/**
 * Reads until it is closed. A connection that breaks is made again where it broke; so is one that the master has no room
 * for or cannot serve now, when it said. `ask(headers, signal)` resolves to an answer or throws a `Problem`.
 *
 * `told` hears: `onOpen()`, `onEvent(kind, data)`, `onPause(problem, seconds)` before another try (`problem` is null where
 * a connection broke), and `onRefused(problem)` where trying again would not help.
 */
export class EventReader {
  constructor(ask, told) {
    this.ask = ask;
    this.told = told;
    this.lastId = null;
    this.retryMs = RETRY_MS;
    this.gone = new AbortController();
    this.run();
  }

  close() {
    this.gone.abort();
    clearTimeout(this.timer);
  }

  get isClosed() {
    return this.gone.signal.aborted;
  }

  async run() {
    while (!this.isClosed) {
      const problem = await this.read();
      if (this.isClosed) return;
      if (problem && !LATER.has(problem.status)) {
        this.close();
        this.told.onRefused(problem);
        return;
      }
      const waitMs = problem?.retryAfter ? problem.retryAfter * 1000 : this.retryMs;
      this.told.onPause(problem, Math.ceil(waitMs / 1000));
      await new Promise((done) => { this.timer = setTimeout(done, waitMs); });
    }
  }

  /** One connection, to its end; why there was none, or null. */
  async read() {
    let answer;
    try {
      answer = await this.ask(this.lastId === null ? {} : { 'Last-Event-ID': this.lastId }, this.gone.signal);
    } catch (problem) {
      return problem;
    }
    this.told.onOpen();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let [text, event] = ['', newEvent()];
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch {
        return null;
      }
      if (piece.done) return null;
      const lines = (text + piece.value).split('\n');
      text = lines.pop();
      for (const line of lines) {
        if (line) this.take(event, line);
        else {
          this.lastId = event.id ?? this.lastId;
          if (event.data.length) this.told.onEvent(event.kind, JSON.parse(event.data.join('\n')));
          if (this.isClosed) return null;
          event = newEvent();
        }
      }
    }
  }

  take(event, line) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === 'event') event.kind = value;
    else if (name === 'data') event.data.push(value);
    else if (name === 'id') event.id = value;
    else if (name === 'retry') this.retryMs = Number(value) || this.retryMs;
  }
}

function newEvent() {
  return { kind: 'message', data: [], id: null };
}
