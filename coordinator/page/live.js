/* This tab's end of the connection that all tabs share. */
import { Hub } from "./hub.js";
import { mustSignIn } from "./api.js";

let port;
const listeners = new Set();
const logs = new Map();
let next = 1;
const mine = Math.random().toString(36).slice(2);

function connect() {
  if (typeof SharedWorker !== "undefined") {
    try {
      port = new SharedWorker(new URL("./hub.js", import.meta.url), { type: "module", name: "haulier" }).port;
      port.onmessage = (message) => take(message.data);
      return;
    } catch { /* this tab alone, then */ }
  }
  const channel = new MessageChannel();
  new Hub().join(channel.port1);
  port = channel.port2;
  port.onmessage = (message) => take(message.data);
}

function take(said) {
  if (said.do === "parts") logs.get(said.log)?.parts(said.parts);
  else if (said.do === "end") { const log = logs.get(said.log); logs.delete(said.log); log?.end(said); }
  else if (said.do === "denied") mustSignIn(said.sent).then(tellSeen);
  else for (const listener of listeners) listener(said);
}

const tellSeen = () => port.postMessage({ do: "seen", seen: !document.hidden });

/** Calls `heard` with each event, and with `up` and `down` of the connection. Returns how to stop. */
export function listen(heard) {
  listeners.add(heard);
  return () => listeners.delete(heard);
}

/** Follows a log; `reader` has `parts(texts)` and `end(what)`. Returns how to stop. */
export function followLog(path, reader) {
  const id = mine + "." + next++;
  logs.set(id, reader);
  port.postMessage({ do: "log", log: id, path });
  return () => { logs.delete(id); port.postMessage({ do: "stop", log: id }); };
}

export function start() {
  connect();
  tellSeen();
  document.addEventListener("visibilitychange", tellSeen);
  window.addEventListener("pagehide", () => port.postMessage({ do: "bye" }));
  window.addEventListener("pageshow", tellSeen);
  setInterval(() => port.postMessage({ do: "alive" }), 20_000);
}
