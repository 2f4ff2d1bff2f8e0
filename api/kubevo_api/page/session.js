// Who we are: the token comes in the address's fragment or through the form, lives in this tab's
// sessionStorage, and is made a cookie for what cannot send headers (event streams, downloads).

import { Problem, get, post, useToken } from "./api.js";

const KEY = "kubevo-token";
const RENEW_MILLISECONDS = 3_600_000;
const FRAGMENT = /^#token=([^&]+)(?:&(.*))?$/;

/** Take a token out of the address bar, where `kubevo serve` puts it; true when one was there. */
export function takeFromAddress() {
  const found = FRAGMENT.exec(location.hash);
  if (!found) return false;
  sessionStorage.setItem(KEY, decodeURIComponent(found[1]));
  // Without a trace in the history: the address may be shown or shared.
  history.replaceState(null, "", `${location.pathname}#/${found[2] ?? ""}`);
  return true;
}

/** Begin a session with what is known; true when the server accepts it. Throws when it is gone. */
export async function open() {
  const token = sessionStorage.getItem(KEY);
  useToken(token);
  try {
    // Another tab's cookie may serve as well.
    await (token ? post("/session") : get("/version"));
    return true;
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return false;
    throw error;
  }
}

/** Keep the cookie from ending while the page is open: downloads need it. */
export function keepOpen() {
  setInterval(async () => {
    try {
      await open();
    } catch (error) {
      if (error.status === undefined) throw error; // a lost server is said elsewhere
    }
  }, RENEW_MILLISECONDS);
}

/** Try a token that a person typed. Throws what the server says against it. */
export async function enter(token) {
  useToken(token);
  try {
    await post("/session");
  } catch (error) {
    useToken(sessionStorage.getItem(KEY));
    throw error;
  }
  sessionStorage.setItem(KEY, token);
}

/** Tell whether this tab has a token. */
export function isKnown() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Forget a token that is not valid. */
export function forget() {
  sessionStorage.removeItem(KEY);
  useToken(null);
}
