/* One connection for all tabs: a browser has six to a server over HTTP/1.1, however many tabs there are.

   As a SharedWorker it serves all tabs; where there is none, a tab runs it for itself. It holds the stream of events
   while a tab is seen, and at most three logs; tabs that want more take turns, each going on where it was, and tabs at
   the same place of a log share one reading of it. */

const LOGS_AT_ONCE = 3;
const QUIET = 250; // milliseconds without a line after which others may have a turn
const FIRST = 1000;
const TURN = 600; // milliseconds after which they have it in any case
const PORT_LIFE = 90_000;
const HEADERS = { "X-Requested-With": "haulier" };

/** Reads server-sent events; calls `heard(name, data, id)` for each. */
export async function readEvents(response, heard, woken = () => {}) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "", data = [], id = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) heard(name || "message", data.join("\n"), id);
        name = ""; data = [];
      } else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
      else if (line.startsWith("event:")) name = line.slice(6).trim();
      else if (line.startsWith("id:")) id = line.slice(3).trim();
    }
    woken();
  }
}

export class Hub {
  constructor() {
    this.tabs = new Map(); // port → {seen, heard: when it last spoke}
    this.stream = null;
    this.up = false;
    this.logs = new Map(); // what a tab wants to read
    setInterval(() => this.forget(), 30_000);
  }

  join(port) {
    this.tabs.set(port, { seen: false, heard: Date.now() });
    port.onmessage = (message) => this.take(port, message.data);
    if (port.start) port.start();
  }

  take(port, said) {
    const tab = this.tabs.get(port) || { seen: false };
    this.tabs.set(port, tab);
    tab.heard = Date.now();
    if (said.do === "seen") this.see(port, tab, said.seen);
    if (said.do === "bye") this.leave(port);
    if (said.do === "log") this.want(port, said);
    if (said.do === "stop") this.stop(said.log);
    this.listen();
  }

  /** Notes whether a tab is seen: the logs of one that is not are put off, and go on where they were. */
  see(port, tab, seen) {
    tab.seen = seen;
    if (seen && this.up) port.postMessage({ do: "up" });
    if (!seen) for (const log of this.logs.values()) if (log.port === port) leave(log);
    this.turn();
  }

  leave(port) {
    this.tabs.delete(port);
    for (const log of [...this.logs.values()]) if (log.port === port) this.stop(log.id);
  }

  forget() {
    for (const [port, tab] of this.tabs) if (Date.now() - tab.heard > PORT_LIFE) this.leave(port);
    this.listen();
  }

  tell(message) {
    for (const [port, tab] of this.tabs) if (tab.seen) port.postMessage(message);
  }

  // --- events

  listen() {
    const wanted = [...this.tabs.values()].some((tab) => tab.seen);
    if (wanted && !this.stream) this.follow();
    if (!wanted && this.stream) { this.stream.abort(); this.stream = null; this.up = false; }
  }

  async follow() {
    const stream = this.stream = new AbortController();
    let pause = 500;
    while (!stream.signal.aborted) {
      try {
        const sent = Date.now();
        const response = await fetch("/events", { signal: stream.signal, headers: HEADERS, credentials: "same-origin" });
        if (response.status === 401) { this.tell({ do: "denied", sent }); this.stream = null; return; }
        if (!response.ok) throw new Error("HTTP " + response.status);
        pause = 500;
        this.up = true;
        this.tell({ do: "up" });
        await readEvents(response, (_, data) => this.tell({ do: "event", event: JSON.parse(data) }));
      } catch { /* told below */ }
      if (stream.signal.aborted) return;
      this.up = false;
      this.tell({ do: "down" });
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(pause * 1.7, 5000);
    }
  }

  // --- logs

  want(port, { log: id, path }) {
    this.logs.set(id, { id, port, path, last: "", reading: null, parts: [] });
    this.turn();
  }

  stop(id) {
    const log = this.logs.get(id);
    this.logs.delete(id);
    if (log) leave(log);
    this.turn();
  }

  turn() {
    const read = new Set([...this.logs.values()].map((log) => log.reading));
    read.delete(null);
    for (let free = LOGS_AT_ONCE - read.size; free > 0 && this.waiting().length; free--) this.read(this.waiting()[0]);
  }

  waiting() { return [...this.logs.values()].filter((log) => !log.reading && this.tabs.get(log.port)?.seen); }

  /** Reads a log for those that wait for it at the same place. */
  async read({ path, last: from }) {
    const reading = { ends: new AbortController(), logs: new Set() }, { signal } = reading.ends;
    const join = (at) => { for (const log of this.waiting()) if (log.path === path && log.last === at) { log.reading = reading; reading.logs.add(log); } };
    const end = (how) => {
      for (const log of reading.logs) { this.logs.delete(log.id); log.port.postMessage({ do: "end", log: log.id, ...how }); }
      reading.logs.clear();
    };
    const send = () => {
      for (const log of reading.logs) {
        if (log.parts.length) log.port.postMessage({ do: "parts", log: log.id, parts: log.parts });
        log.parts = [];
      }
    };
    let timer = null, began = 0, wait = 0; // when its first lines came: until then it has longer
    const quiet = (after) => {
      clearTimeout(timer);
      if (began && Date.now() - began > TURN && this.waiting().length) reading.ends.abort();
      else timer = setTimeout(() => (this.waiting().length ? reading.ends.abort() : quiet(QUIET)), after);
    };
    join(from);
    try {
      const sent = Date.now();
      const response = await fetch(path, { signal, headers: from ? { ...HEADERS, "Last-Event-ID": from } : HEADERS, credentials: "same-origin" });
      if (response.status === 401) for (const log of reading.logs) log.port.postMessage({ do: "denied", sent });
      else if (response.status >= 400 && response.status < 500 && response.status !== 429) end({ error: response.status });
      if (!response.ok) throw new Error("HTTP " + response.status);
      quiet(FIRST);
      await readEvents(response, (name, data, id) => {
        if (name === "end") { send(); end(JSON.parse(data)); return; }
        for (const log of reading.logs) { log.parts.push(data); log.last = id; }
        join(id);
      }, () => { if ([...reading.logs].some((log) => log.parts.length)) { began ||= Date.now(); send(); quiet(QUIET); } });
      wait = 500;
    } catch { if (!signal.aborted) wait = 1000; }
    clearTimeout(timer);
    send();
    if (wait && reading.logs.size) await new Promise((done) => setTimeout(done, wait));
    for (const log of reading.logs) {
      log.reading = null;
      if (this.logs.delete(log.id)) this.logs.set(log.id, log); // to the end of the line
    }
    this.turn();
  }
}

/** Ends the part of a log in what is read; nothing is read for nobody. */
function leave(log) {
  if (!log.reading) return;
  log.reading.logs.delete(log);
  if (!log.reading.logs.size) log.reading.ends.abort();
  log.reading = null;
}

if (typeof SharedWorkerGlobalScope !== "undefined" && self instanceof SharedWorkerGlobalScope) {
  const hub = new Hub();
  self.onconnect = (event) => hub.join(event.ports[0]);
}
