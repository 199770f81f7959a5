// People: one's own password; for an admin the users and their roles, the tokens of programs, and the
// audit trail to take away.

import * as api from "./api.js";
import { ask, during, h, said, time, toast } from "./dom.js";
import { may } from "./roles.js";
import { t } from "./words.js";

const ROLES = ["viewer", "operator", "engineer", "admin"];
const SCOPES = ["read", "inspect", "feedback", "change", "admin"];
const SHORTEST = 12; // characters of a password, as the service has it

export function peopleView(main) {
  const users = h("tbody");
  const tokens = h("tbody");
  const made = h("div", { role: "status" });
  const heads = (...texts) => h("thead", {}, h("tr", {}, texts.map((text) => h("th", { scope: "col" }, text))));
  const section = (title, ...children) => h("section", {}, h("h2", {}, title), ...children);
  const secret = (name, autocomplete = "new-password") => h("input", { type: "password", name, required: true, minlength: autocomplete === "new-password" ? SHORTEST : null, autocomplete });

  const field = (text, control) => h("label", {}, text, " ", control);
  const roles = (role, more) => h("select", more, ROLES.map((one) => h("option", { value: one, selected: one === role }, t(`role.${one}`))));

  main.append(h("div", { class: "models people" }, h("h1", {}, t("view.people")), ownPassword(), may("admin") && forAdmins()));
  if (may("admin")) load();

  async function load() {
    try {
      const [people, programs] = await Promise.all([api.users(), api.tokens()]);
      users.replaceChildren(...people.users.map(userRow));
      tokens.replaceChildren(...programs.tokens.map(tokenRow));
    } catch (error) {
      toast(said(error), { kind: "error" });
    }
  }

  /** A form whose one button does something and says so; `work` is given what was filled in. */
  function form(label, button, work, ...fields) {
    const submit = h("button", { type: "submit", class: "primary" }, button);
    const all = h("form", { class: "row controls", "aria-label": label, onsubmit: (event) => {
      event.preventDefault();
      during(submit, async () => { await work(new FormData(all)); for (const one of all.querySelectorAll("[name=name], [type=password]")) one.value = ""; });
    } }, fields, submit);
    return all;
  }

  function ownPassword() {
    return section(t("people.own"), form(t("people.own"), t("people.change"), async (given) => {
      await api.changePassword(given.get("old"), given.get("new"));
      location.reload(); // the session has ended: the service asks for the new one
    }, field(t("people.old"), secret("old", "current-password")), field(t("people.new"), secret("new"))), h("p", {}, t("people.password_rule", { n: SHORTEST })));
  }

  function forAdmins() {
    return h("div", { class: "sections" },
      section(t("people.users"), h("div", { class: "scroll" }, h("table", {}, heads(t("people.name"), t("people.role"), t("people.state"), h("span", { class: "unseen" }, t("actions"))), users)),
        h("h3", {}, t("people.add")),
        form(t("people.add"), t("people.add_button"), async (given) => {
          await api.setUser(given.get("name"), { role: given.get("role"), password: given.get("password") });
          toast(t("people.added", { name: given.get("name") }));
          await load();
        }, field(t("people.name"), h("input", { name: "name", maxlength: 80, required: true, autocomplete: "off" })), field(t("people.role"), roles("operator", { name: "role" })), field(t("people.password"), secret("password"))),
        h("dl", { class: "figures" }, ROLES.flatMap((role) => [h("dt", {}, t(`role.${role}`)), h("dd", {}, t(`people.may.${role}`))]))),
      section(t("people.tokens"), h("p", {}, t("people.tokens_about")),
        h("div", { class: "scroll" }, h("table", {}, heads(t("people.name"), t("people.scopes"), t("people.state"), h("span", { class: "unseen" }, t("actions"))), tokens)),
        h("h3", {}, t("people.make")),
        form(t("people.make"), t("people.make_button"), async (given) => {
          const days = given.get("days");
          const { secret: value, token } = await api.makeToken({ name: given.get("name"), scopes: given.getAll("scope"), days: days ? Number(days) : null });
          showSecret(token.name, value);
          await load();
        }, field(t("people.name"), h("input", { name: "name", maxlength: 80, required: true, autocomplete: "off" })),
        h("fieldset", { class: "row" }, h("legend", {}, t("people.scopes")), SCOPES.map((scope) => h("label", {}, h("input", { type: "checkbox", name: "scope", value: scope, checked: scope === "inspect" }), " ", t(`people.scope.${scope}`)))),
        field(t("people.days"), h("input", { name: "days", type: "number", min: 1, max: 36499, value: 365 }))), made),
      section(t("people.audit"), h("p", {}, t("people.audit_about")), h("a", { class: "button", href: api.address("/audit.jsonl"), download: "audit.jsonl" }, t("people.audit_button"))));
  }

  function userRow(user) {
    const change = async (given) => {
      try {
        await api.setUser(user.name, given);
        toast(t("people.changed", { name: user.name }));
      } catch (error) {
        toast(said(error), { kind: "error" });
      }
      await load();
    };
    const role = roles(user.role, { "aria-label": t("people.role_of", { name: user.name }), onchange: () => change({ role: role.value }) });
    const act = (text, work) => h("button", { type: "button", "aria-label": `${text}: ${user.name}`, onclick: (event) => during(event.currentTarget, work) }, text);
    return h("tr", {}, h("th", { scope: "row" }, user.name), h("td", {}, role),
      h("td", {}, user.disabled ? t("people.disabled", { time: time(user.disabled) }) : t("people.active")),
      h("td", {}, h("div", { class: "row" },
        act(t("people.new_password"), () => newPassword(user.name, change)),
        user.disabled ? act(t("people.enable"), () => change({ disabled: false }))
          : act(t("people.disable"), async () => { if (await ask(t("people.disable_title", { name: user.name }), h("p", {}, t("people.disable_text")), t("people.disable"))) await change({ disabled: true }); }))));
  }

  async function newPassword(name, change) {
    const given = secret("password");
    given.id = "other-password";
    if (await ask(t("people.password_title", { name }), h("p", {}, h("label", { for: "other-password" }, t("people.new"), " "), given), t("people.set"))) await change({ password: given.value });
  }

  function tokenRow(token) {
    const ended = token.expires && new Date(token.expires) < new Date();
    const state = token.revoked ? t("people.revoked", { time: time(token.revoked) }) : !token.expires ? t("people.active") : ended ? t("people.ended", { time: time(token.expires) }) : t("people.until", { time: time(token.expires) });
    return h("tr", {}, h("th", { scope: "row" }, token.name), h("td", {}, token.scopes.map((scope) => t(`people.scope.${scope}`)).join(", ")), h("td", {}, state),
      h("td", {}, !token.revoked && h("button", { type: "button", "aria-label": `${t("people.revoke")}: ${token.name}`, onclick: (event) => during(event.currentTarget, async () => {
        if (!await ask(t("people.revoke_title", { name: token.name }), h("p", {}, t("people.revoke_text")), t("people.revoke"))) return;
        await api.revokeToken(token.id);
        await load();
      }) }, t("people.revoke"))));
  }

  function showSecret(name, value) {
    const shown = h("input", { readonly: true, value, "aria-label": t("people.secret", { name }), class: "secret" });
    made.replaceChildren(h("p", { class: "note ok" }, t("people.secret", { name }), " ", shown, " ",
      h("small", {}, t("people.once"))));
    shown.select();
  }

  return {};
}
