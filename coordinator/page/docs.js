/* Shows the OpenAPI document. */

const TARGET = document.getElementById("main");

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return make("a", { href: "#schema-" + name }, name);
  }
  if (schema.anyOf) return schema.anyOf.flatMap((part, at) => (at ? [" or ", typeOf(part)] : [typeOf(part)]));
  if (schema.type === "array") return ["list of ", typeOf(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) return ["map of ", typeOf(schema.additionalProperties)];
  return [schema.type || "any", schema.format ? " (" + schema.format + ")" : ""];
}

function rows(entries) {
  return make("table", {}, make("tbody", {}, entries.map((cells) =>
    make("tr", {}, cells.map((cell) => make("td", {}, cell))))));
}

function operation(method, path, said) {
  const verb = method.toUpperCase();
  const parts = [];
  if (said.parameters.length) {
    parts.push(make("h3", {}, "Parameters"), rows(said.parameters.map((one) => [
      make("code", {}, one.name), one.in, typeOf(one.schema), one.description || ""])));
  }
  if (said.requestBody) {
    parts.push(make("h3", {}, "Body"), rows(Object.entries(said.requestBody.content).map(([kind, media]) => [
      make("code", {}, kind), typeOf(media.schema)])));
  }
  parts.push(make("h3", {}, "Responses"), rows(Object.entries(said.responses).map(([status, answer]) => [
    status, answer.description,
    Object.entries(answer.content || {}).map(([kind, media]) =>
      make("div", {}, make("code", {}, kind), " ", typeOf(media.schema)))])));
  return make("details", { class: "card" },
    make("summary", {}, make("span", { class: "method " + verb }, verb), make("code", {}, path),
      make("span", { class: "soft" }, said.summary)),
    make("div", {}, parts));
}

function model(name, schema) {
  const fields = Object.entries(schema.properties || {}).map(([field, inner]) => [
    make("code", {}, field), typeOf(inner), inner.description || ""]);
  return make("details", { class: "card", id: "schema-" + name },
    make("summary", {}, make("code", {}, name)),
    make("div", {}, schema.description ? make("p", { class: "soft" }, schema.description) : [], rows(fields)));
}

function draw(document_) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(document_.paths)) {
    for (const [method, said] of Object.entries(methods)) {
      const group = said.tags[0];
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(operation(method, path, said));
    }
  }
  const parts = [];
  for (const [group, operations] of groups) parts.push(make("h2", {}, group.replaceAll("_", " ")), operations);
  parts.push(make("h2", {}, "models"));
  for (const [name, schema] of Object.entries(document_.components.schemas)) parts.push(model(name, schema));
  TARGET.replaceChildren(...parts.flat(Infinity));
}

function openTarget() {
  const found = location.hash.startsWith("#schema-") && document.getElementById(location.hash.slice(1));
  if (found) { found.open = true; found.scrollIntoView(); }
}

window.addEventListener("hashchange", openTarget);
ask("/openapi.json").then(draw).then(openTarget).catch((error) => {
  TARGET.replaceChildren(make("p", {}, error.message));
});
