"use strict";

/** Makes an element. Text goes in as text, never as markup. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** Asks the API; throws an error with the server's message. */
async function ask(path, options = {}) {
  const headers = { Accept: "application/json", "X-Requested-With": "haulier", ...options.headers };
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) throw new Error("Sign in on the home page first.");
  const text = await response.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* told below by its status */ }
  if (!response.ok) throw new Error((body && body.message) || "HTTP " + response.status);
  return body;
}
