/* Asks the API, and tells when nobody is signed in or the server is away. */
import { noteServerTime } from "./format.js";

export const ASKED = { Accept: "application/json", "X-Requested-With": "haulier" };

export class Refused extends Error {
  constructor(status, body) {
    super((body && body.message) || "HTTP " + status);
    this.status = status;
    this.faults = (body && body.faults) || [];
  }
}

const told = { signIn: () => {}, reached: () => {} };
/** Says whom to tell that one must sign in, and whether the server was reached. */
export function tellOf(signIn, reached) { told.signIn = signIn; told.reached = reached; }

let signedIn = null; // a promise while the form is shown
let signedAt = 0; // when somebody last signed in

/** Waits for a sign-in, which is asked for unless there was one since `sent`, the time of what was refused. */
export function mustSignIn(sent) {
  if (sent < signedAt) return Promise.resolve();
  signedIn ||= told.signIn().then(() => { signedAt = Date.now(); }).finally(() => { signedIn = null; });
  return signedIn;
}

async function once(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options, headers: { ...ASKED, ...options.headers } });
  } catch (error) {
    if (error.name !== "AbortError") told.reached(false);
    throw error.name === "AbortError" ? error : new Error("The server can't be reached.");
  }
  noteServerTime(response);
  return response;
}

/** Asks; returns what the server answers. Where one must sign in, it waits until that is done and asks again. */
export async function ask(path, options = {}) {
  let sent = Date.now(), response = await once(path, options);
  while (response.status === 401 && !options.open) {
    await mustSignIn(sent);
    sent = Date.now();
    response = await once(path, options);
  }
  if (response.status < 500) told.reached(true);
  const text = await response.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* its status tells */ }
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

/** Asks for what not everybody may see; returns null where it is refused. */
export const askIfAllowed = (path, options) => ask(path, options).catch((error) => { if (error.status < 500) return null; throw error; });

export const put = (path) => ask(path, { method: "PUT" });
export const drop = (path) => ask(path, { method: "DELETE" });
export const post = (path, data, options = {}) => ask(path, {
  method: "POST", body: JSON.stringify(data), headers: { "Content-Type": "application/json" }, ...options,
});
export const sendYaml = (method, path, text, signal) => ask(path, {
  method, body: text, headers: { "Content-Type": "text/yaml" }, signal,
});
export const seg = encodeURIComponent;
