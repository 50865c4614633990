/* What terminals understand, as plain text with colours: nothing of it can do anything but be read. */

const OSC = /\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)/g;
const OTHER = /\x1b\[[0-9;:?]*[ -\/]*[@-ln-~]|\x1b[ -\/]*[0-Z\\^-~]/g;
const SGR = /\x1b\[([0-9;:]*)m/g;

/** Returns a line as it would stand there: what a carriage return overwrote is gone, colours are still in it. */
export function settled(line) {
  if (line.includes("\r")) line = line.split("\r").filter((part) => part).at(-1) || "";
  return line.includes("\x1b") ? line.replace(OSC, "").replace(OTHER, "") : line;
}

/** Returns a text of many lines as plain text. */
export const tidy = (text) => (/[\x1b\r]/.test(text) ? text.split("\n").map((line) => plain(settled(line))).join("\n") : text);

/** Returns a line without its colours. */
export const plain = (line) => (line.includes("\x1b") ? line.replace(SGR, "").replaceAll("\x1b", "") : line);

const rgb = (n) => {
  if (n < 16) return null;
  if (n > 231) { const grey = 8 + (n - 232) * 10; return `rgb(${grey},${grey},${grey})`; }
  const of = (part) => (part ? part * 40 + 55 : 0);
  n -= 16;
  return `rgb(${of(Math.floor(n / 36))},${of(Math.floor(n / 6) % 6)},${of(n % 6)})`;
};

/** Returns the pieces of a line, each a text with its classes and, of 256 colours, its colour. */
export function pieces(line) {
  const found = [];
  let style = {}, at = 0;
  for (const code of line.matchAll(SGR)) {
    if (code.index > at) found.push({ text: line.slice(at, code.index), ...style });
    at = code.index + code[0].length;
    style = changed(style, code[1].split(/[;:]/).map(Number));
  }
  if (at < line.length) found.push({ text: line.slice(at), ...style });
  return found.map((piece) => ({ ...piece, text: piece.text.replaceAll("\x1b", "") }));
}

function changed(style, codes) {
  const next = { ...style };
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at];
    if (code === 0) for (const name in next) delete next[name];
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.under = true;
    else if (code === 22) { delete next.bold; delete next.dim; }
    else if (code === 23) delete next.italic;
    else if (code === 24) delete next.under;
    else if (code >= 30 && code <= 37) { next.fore = code - 30; delete next.foreRgb; }
    else if (code >= 90 && code <= 97) { next.fore = code - 82; delete next.foreRgb; }
    else if (code === 39) { delete next.fore; delete next.foreRgb; }
    else if (code === 38 || code === 48) {
      const wide = codes[at + 1] === 5;
      const colour = wide ? codes[at + 2] : codes[at + 1] === 2 ? `rgb(${codes.slice(at + 2, at + 5).map((n) => n & 255).join(",")})` : null;
      at += wide ? 2 : 4;
      if (code === 38) {
        if (wide && colour < 16) { next.fore = colour; delete next.foreRgb; }
        else { delete next.fore; next.foreRgb = wide ? rgb(colour) : colour; }
      }
    }
  }
  return next;
}
