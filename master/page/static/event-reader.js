// A reader of server-sent events. Unlike an EventSource it reports why a request failed, and honours Retry-After.

const RETRY_MS = 2000;
const RETRYABLE = new Set([0, 429, 502, 503, 504]);

/**
 * Reads until `close()`. Reconnects with Last-Event-ID after a broken connection, and retries when the master is full or
 * unavailable, after its Retry-After. `connect(headers, signal)` resolves to a response or throws a `Problem`.
 *
 * `handlers`: `onOpen()`, `onEvent(kind, data)`, `onPause(problem, seconds)` before a retry (`problem` is null after a
 * broken connection), and `onRefused(problem)` for an error that a retry would not solve.
 */
export class EventReader {
  constructor(connect, handlers) {
    this.connect = connect;
    this.handlers = handlers;
    this.lastId = null;
    this.retryMs = RETRY_MS;
    this.abortController = new AbortController();
    this.run();
  }

  close() {
    this.abortController.abort();
    clearTimeout(this.timer);
  }

  get isClosed() {
    return this.abortController.signal.aborted;
  }

  async run() {
    while (!this.isClosed) {
      const problem = await this.read();
      if (this.isClosed) return;
      if (problem && !RETRYABLE.has(problem.status)) {
        this.close();
        this.handlers.onRefused(problem);
        return;
      }
      const waitMs = problem?.retryAfter ? problem.retryAfter * 1000 : this.retryMs;
      this.handlers.onPause(problem, Math.ceil(waitMs / 1000));
      await new Promise((done) => { this.timer = setTimeout(done, waitMs); });
    }
  }

  /** Reads one connection to its end. Returns the problem that prevented it, or null. */
  async read() {
    let response;
    try {
      response = await this.connect(this.lastId === null ? {} : { 'Last-Event-ID': this.lastId }, this.abortController.signal);
    } catch (problem) {
      return problem;
    }
    this.handlers.onOpen();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let [text, event] = ['', newEvent()];
    for (;;) {
      let chunk;
      try {
        chunk = await reader.read();
      } catch {
        return null;
      }
      if (chunk.done) return null;
      const lines = (text + chunk.value).split('\n');
      text = lines.pop();
      for (const line of lines) {
        if (line) this.parseLine(event, line);
        else {
          this.lastId = event.id ?? this.lastId;
          if (event.data.length) this.handlers.onEvent(event.kind, JSON.parse(event.data.join('\n')));
          if (this.isClosed) return null;
          event = newEvent();
        }
      }
    }
  }

  parseLine(event, line) {
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
