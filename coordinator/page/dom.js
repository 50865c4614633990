/* A page described as plain data, and patched by key into what stands there: focus, selection and scrolling stay. */

const PICTURES = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Returns a text that can do nothing but be read: control and direction characters are shown as pictures. */
export function clean(text) {
  return String(text).replace(PICTURES, (letter) => {
    const code = letter.charCodeAt(0);
    return code < 32 ? String.fromCharCode(0x2400 + code) : code === 127 ? "\u2421" : "\ufffd";
  });
}

/** Describes an element. `key` says which one it is among its siblings; `on…` are handlers, the rest attributes. */
export function h(tag, props, ...children) {
  const { key, ...rest } = props || {};
  return { tag, key, props: rest, children: children.flat(Infinity).filter((one) => one || one === 0) };
}

/** Makes what is inside `host` as described. */
export function render(host, ...wanted) {
  patchChildren(host, wanted.flat(Infinity).filter((one) => one || one === 0));
}

function patchChildren(host, wanted) {
  const old = host.vdom || [];
  const keyed = new Map();
  const loose = [];
  for (const one of old) one.key === undefined ? loose.push(one) : keyed.set(one.key, one);
  const next = [];
  for (const want of wanted) {
    const node = typeof want === "object" ? want : { tag: "", text: clean(want), props: {}, children: [] };
    let had;
    if (node.key !== undefined) { had = keyed.get(node.key); keyed.delete(node.key); }
    else if (loose.length && loose[0].tag === node.tag) had = loose.shift();
    else {
      const at = loose.findIndex((one) => one.tag === node.tag);
      if (at >= 0) had = loose.splice(at, 1)[0];
    }
    if (had && had.tag !== node.tag) { had.el.remove(); had = undefined; }
    patchOne(host, node, had);
    next.push(node);
  }
  for (const gone of [...keyed.values(), ...loose]) gone.el.remove();
  let at = host.firstChild;
  for (const node of next) {
    if (node.el === at) at = at.nextSibling;
    else host.insertBefore(node.el, at);
  }
  host.vdom = next;
}

const SVG = new Set(["svg", "path", "polyline", "rect", "circle"]);

function patchOne(host, node, had) {
  if (node.tag === "") {
    node.el = had ? had.el : document.createTextNode("");
    if (node.el.data !== node.text) node.el.data = node.text;
    return;
  }
  const fresh = !had;
  node.el = had ? had.el : SVG.has(node.tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", node.tag) : document.createElement(node.tag);
  patchProps(node.el, node.props, had ? had.props : {});
  if (!node.props.own) patchChildren(node.el, node.children);
  if (fresh && node.props.made) node.props.made(node.el);
}

function patchProps(el, props, old) {
  for (const name in old) if (!(name in props)) setProp(el, name, null);
  for (const name in props) if (props[name] !== old[name] || name === "value" || name === "checked") setProp(el, name, props[name]);
}

function setProp(el, name, value) {
  if (name === "own" || name === "made") return;
  if (name.startsWith("on")) { el[name] = value || null; return; }
  if (name === "place") {
    for (const side in value || {}) if (el.style[side] !== value[side]) el.style[side] = value[side];
    return;
  }
  if (name === "value") { if (el.value !== value && document.activeElement !== el) el.value = value ?? ""; return; }
  if (name === "checked" || name === "open") { if (el[name] !== !!value) el[name] = !!value; return; }
  if (value === null || value === undefined || value === false) el.removeAttribute(name);
  else {
    const text = value === true ? "" : clean(value);
    if (el.getAttribute(name) !== text) el.setAttribute(name, text);
  }
}
