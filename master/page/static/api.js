// The requests of the page to the master.

import { EventReader } from './event-reader.js';

/**
 * A failed request. `errors` are about fields. `retryAfter` is the Retry-After header in seconds, or null.
 * `status` is 0 without a response.
 */
export class Problem extends Error {
  constructor(status, detail, errors = [], retryAfter = null) {
    super(detail);
    this.status = status;
    this.errors = errors;
    this.retryAfter = retryAfter;
  }
}

const SESSION_PATH = '/api/session';

async function requestJson(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** Resolves to a successful response with an unread body. Throws a `Problem`. */
async function send(method, path, { body, headers = {}, signal } = {}) {
  const options = { method, headers: { Accept: 'application/json', ...headers }, signal };
  if (body !== undefined) {
    options.headers['Content-Type'] = 'application/json';
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, 'the master does not answer');
  }
  // The session has ended: the page reloads and asks for a token.
  if (response.status === 401 && path !== SESSION_PATH) window.location.reload();
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  const retryAfter = Number.parseInt(response.headers.get('Retry-After'), 10) || null;
  try {
    const problem = await response.json();
    return new Problem(response.status, problem.detail || problem.title, problem.errors || [], retryAfter);
  } catch {
    return new Problem(response.status, `the master answered ${response.status}`, [], retryAfter);
  }
}

const workerPath = (id) => `/api/workers/${encodeURIComponent(id)}`;
const taskPath = (id) => `/api/tasks/${encodeURIComponent(id)}`;

export const session = () => requestJson('GET', SESSION_PATH);
export const signIn = (token) => requestJson('POST', SESSION_PATH, { body: { token } });
export const signOut = () => requestJson('DELETE', SESSION_PATH);

export const overview = (signal) => requestJson('GET', '/api/overview', { signal });
export const workers = (signal) => requestJson('GET', '/api/workers', { signal });
export const workerEvents = () => new EventSource('/telemetry/stream?fields=summary');
export const workerDetails = (id, signal) => requestJson('GET', workerPath(id), { signal });
export const workerTasks = (id, signal) => requestJson('GET', `${workerPath(id)}/tasks?limit=50`, { signal });
export const drain = (id, reason) => requestJson('POST', `${workerPath(id)}/drain`, { body: { reason } });
export const undrain = (id) => requestJson('POST', `${workerPath(id)}/undrain`);
export const forget = (id) => requestJson('DELETE', workerPath(id));

export const tasks = (query, signal) => requestJson('GET', `/api/tasks?${new URLSearchParams(query)}`, { signal });
export const taskDetails = (id, signal) => requestJson('GET', taskPath(id), { signal });
export const cancel = (id) => requestJson('DELETE', taskPath(id));
export const submit = (body, key) => requestJson('POST', '/api/tasks', { body, headers: { 'Idempotency-Key': key } });

export const history = (id, query, signal) =>
  requestJson('GET', `/telemetry/${encodeURIComponent(id)}/history?${new URLSearchParams(query)}`, { signal });

export const logPath = (id) => `${taskPath(id)}/logs?format=text`;
export const logEvents = (id, tail, handlers) => new EventReader((headers, signal) =>
  send('GET', `${taskPath(id)}/logs?follow=true&tail=${tail}`, { headers: { Accept: 'text/event-stream', ...headers }, signal }), handlers);
