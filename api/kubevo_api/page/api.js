// Talks to /api/v1: the one place that knows addresses, the token's header and what an error means.
// Unchanged answers come from the browser's cache: it asks with the ETag by itself.

const ROOT = "/api/v1";
const LONGEST_WAIT_SECONDS = 10;

let bearer = null;
let refused = () => {};

/** An answer that is an error, as RFC 9457 describes it. */
export class Problem extends Error {
  constructor(status, title, detail, errors = []) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.errors = errors;
  }
}

/** No answer at all: the server or the network is gone. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer. Is kubevo serve (or the port-forward) still running?");
    this.status = 0;
    this.title = "No answer";
  }
}

/** Send this token with every request; null: rely on the session's cookie. */
export function useToken(token) {
  bearer = token;
}

/** Call `listener(problem)` whenever the server does not know who asks. */
export function onRefused(listener) {
  refused = listener;
}

/** Return the address of `path` with its query; undefined and null are left out. */
export function address(path, query = {}) {
  const known = Object.entries(query).filter(([, v]) => v !== null && v !== undefined && v !== "");
  const search = new URLSearchParams(known).toString();
  return ROOT + path + (search ? `?${search}` : "");
}

/** Return the path of an Experiment. */
export function experiment(namespace, name) {
  return `/namespaces/${encodeURIComponent(namespace)}/experiments/${encodeURIComponent(name)}`;
}

/** GET JSON. Throws Problem or Unreachable; an aborted request throws the signal's AbortError. */
export async function get(path, query = {}, signal = undefined) {
  return (await send("GET", address(path, query), undefined, signal)).json();
}

/** GET text. */
export async function text(path, signal = undefined) {
  return (await send("GET", address(path), undefined, signal)).text();
}

/** POST, with a JSON body where there is one; returns the JSON answer or null. */
export async function post(path, body = undefined) {
  const response = await send("POST", address(path), body);
  return response.status === 204 ? null : response.json();
}

async function send(method, url, body, signal, isRetry = false) {
  const headers = { Accept: "application/json" };
  if (bearer) headers.Authorization = `Bearer ${bearer}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    const content = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(url, { method, headers, body: content, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (response.ok) return response;
  const wait = Number(response.headers.get("Retry-After"));
  if (method === "GET" && !isRetry && wait > 0 && wait <= LONGEST_WAIT_SECONDS) {
    await new Promise((done) => setTimeout(done, wait * 1000));
    signal?.throwIfAborted();
    return send(method, url, body, signal, true);
  }
  const problem = await problemOf(response);
  if (problem.status === 401) refused(problem);
  throw problem;
}

async function problemOf(response) {
  let told = {};
  try {
    told = await response.json();
  } catch {
    // Something between us and the server answered; its status is all there is.
  }
  const title = told.title || response.statusText || "Error";
  return new Problem(response.status, title, told.detail || "", told.errors || []);
}
