/* Users, tokens and what was done, for those who may see it. */
import { h } from "./dom.js";
import { ask, askIfAllowed, drop, post, put, seg } from "./api.js";
import { pages, when } from "./format.js";

const ROLES = ["viewer", "user", "operator", "admin"];

export function accessView(view) {
  let tokens = null, users = null, audit = null, made = "", problem = "", ready = false, number = 1;
  async function load(options) {
    [tokens, users, audit] = await Promise.all(["/tokens", "/users", "/audit?size=20&page=" + number].map((path) => askIfAllowed(path, options)));
    ready = true;
  }
  const act = (work) => (event) => {
    event?.preventDefault?.();
    const form = event?.target?.tagName === "FORM" ? event.target : null;
    view.try(async () => {
      problem = "";
      try { await work(form ? Object.fromEntries(new FormData(form)) : {}); form?.reset(); } catch (error) { problem = error.message; }
      await view.now();
    });
  };
  function draw() {
    if (!ready) return [h("p", { class: "soft", key: "wait" }, "Loading…")];
    return [
      h("div", { class: "title", key: "title" }, h("h1", {}, "Access")),
      problem ? h("p", { class: "bad", key: "problem", role: "alert" }, problem) : null,
      tokens ? h("section", { key: "tokens" }, h("h2", {}, "Tokens"),
        made ? h("p", { class: "banner good", role: "status" }, "Shown only now: ", h("code", { class: "selectable" }, made)) : null,
        h("ul", { class: "list card" }, tokens.map((one) => h("li", { key: one.id, class: "line" }, h("span", { class: "what" }, h("strong", {}, one.name), h("span", { class: "soft" }, [one.username, one.role].filter(Boolean).join(" · ")), one.expiresAt ? h("span", { class: "soft" }, "ends ", when(one.expiresAt)) : null, one.lastUsedAt ? h("span", { class: "soft" }, "used ", when(one.lastUsedAt)) : null),
          h("button", { type: "button", class: "danger", onclick: act(() => drop("/tokens/" + seg(one.id))) }, "Revoke"))),
        h("li", { key: "new" }, h("form", { class: "line", onsubmit: act(async (said) => { made = (await post("/tokens", Object.fromEntries(Object.entries(said).filter(([, value]) => value)))).token; }) },
          h("input", { name: "name", required: true, placeholder: "Name of a new token", "aria-label": "Name of a new token" }), roleField("role"), h("input", { name: "expires", placeholder: "720h", "aria-label": "Expires after" }), h("button", {}, "Create"))))) : null,
      users ? h("section", { key: "users" }, h("h2", {}, "Users"),
        h("ul", { class: "list card" }, users.map((one) => h("li", { key: one.username, class: "line" }, h("span", { class: "what" }, h("strong", {}, one.username), h("span", { class: "soft" }, [one.name, (one.roles || []).join(", ")].filter(Boolean).join(" · ")), one.disabled ? h("span", { class: "bad" }, "disabled") : null),
          h("button", { type: "button", onclick: act(() => ask("/users/" + seg(one.username), { method: "PUT", body: JSON.stringify({ disabled: !one.disabled }), headers: { "Content-Type": "application/json" } })) }, one.disabled ? "Enable" : "Disable"),
          h("select", { "aria-label": "Give a role to " + one.username, onchange: (event) => { const role = event.target.value; event.target.value = ""; if (role) act(() => put(`/users/${seg(one.username)}/roles/${role}`))(); } }, h("option", { value: "" }, "give role…"), ROLES.map((role) => h("option", { key: role, value: role }, role))))),
        h("li", { key: "new" }, h("form", { class: "line", autocomplete: "off", onsubmit: act((said) => post("/users", said)) },
          h("input", { name: "username", required: true, placeholder: "User name", "aria-label": "User name" }), h("input", { name: "name", placeholder: "Full name", "aria-label": "Full name" }), h("input", { name: "password", type: "password", required: true, placeholder: "Password", "aria-label": "Password", autocomplete: "new-password" }), h("button", {}, "Add"))))) : null,
      audit ? h("section", { key: "audit" }, h("h2", {}, "What was done"), h("ul", { class: "list card" }, audit.items.map((one) => h("li", { key: one.id, class: "line" }, h("span", { class: "ago" }, when(one.at)), h("span", { class: "what" }, h("strong", {}, one.action.replaceAll("_", " ")), h("span", { class: "soft" }, [one.username, one.target].filter(Boolean).join(" · ")))))), pages(audit, "record", (to) => { number = to; view.anew(); })) : null,
      !tokens && !users && !audit ? h("p", { key: "none", class: "empty card" }, "Nothing here is for you to see.") : null,
    ];
  }
  const roleField = (name) => h("select", { name, "aria-label": "Role" }, h("option", { value: "" }, "own role"), ROLES.map((role) => h("option", { key: role, value: role }, role)));
  return { title: "Access", load, draw, changes: () => true };
}
