// Everything that the page asks of the master goes through here.

import { EventReader } from './events.js';

/**
 * An answer that is no success; `errors` are those of fields, `retryAfter` is in seconds where the master named a time.
 * `status` is 0 when there was no answer.
 */
export class Problem extends Error {
  constructor(status, detail, errors = [], retryAfter = null) {
    super(detail);
    this.status = status;
    this.errors = errors;
    this.retryAfter = retryAfter;
  }
}

const SESSION = '/api/session';

async function request(method, path, options) {
  const response = await answer(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** A success, of which nothing was read yet. */
async function answer(method, path, { body, headers = {}, signal } = {}) {
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
  // The session is over: the page begins anew, and asks for a token.
  if (response.status === 401 && path !== SESSION) window.location.reload();
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

const worker = (id) => `/api/workers/${encodeURIComponent(id)}`;
const task = (id) => `/api/tasks/${encodeURIComponent(id)}`;

export const session = () => request('GET', SESSION);
export const signIn = (token) => request('POST', SESSION, { body: { token } });
export const signOut = () => request('DELETE', SESSION);

export const overview = (signal) => request('GET', '/api/overview', { signal });
export const workers = (signal) => request('GET', '/api/workers', { signal });
export const workerEvents = () => new EventSource('/telemetry/stream?fields=summary');
export const workerDetails = (id, signal) => request('GET', worker(id), { signal });
export const workerTasks = (id, signal) => request('GET', `${worker(id)}/tasks?limit=50`, { signal });
export const drain = (id, reason) => request('POST', `${worker(id)}/drain`, { body: { reason } });
export const undrain = (id) => request('POST', `${worker(id)}/undrain`);
export const forget = (id) => request('DELETE', worker(id));

export const tasks = (query, signal) => request('GET', `/api/tasks?${new URLSearchParams(query)}`, { signal });
export const taskDetails = (id, signal) => request('GET', task(id), { signal });
export const cancel = (id) => request('DELETE', task(id));
export const submit = (body, key) => request('POST', '/api/tasks', { body, headers: { 'Idempotency-Key': key } });

export const history = (id, query, signal) =>
  request('GET', `/telemetry/${encodeURIComponent(id)}/history?${new URLSearchParams(query)}`, { signal });

export const logPath = (id) => `${task(id)}/logs?format=text`;
export const logEvents = (id, tail, told) => new EventReader((headers, signal) =>
  answer('GET', `${task(id)}/logs?follow=true&tail=${tail}`, { headers: { Accept: 'text/event-stream', ...headers }, signal }), told);
