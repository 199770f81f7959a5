// What the role of who is logged in allows. A button says with data-needs which scope it takes; where
// that is missing it is greyed out, and says why to who points at it, reaches it by keyboard, or presses it.

import { toast } from "./dom.js";
import { t } from "./words.js";

const ROLE_OF = { read: "viewer", inspect: "operator", feedback: "operator", change: "engineer", admin: "admin" };
let me = null; // as the service says; null where there are no users

/** Whether who is at the page may do what takes a scope. */
export const may = (scope) => !me?.users || me.scopes.includes(scope);

/** Bar from now on what somebody may not do, wherever it comes to stand on the page. */
export function bar(who) {
  me = who;
  if (!me.users) return;
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) for (const one of addedNodes) if (one instanceof Element) barWithin(one);
  }).observe(document.body, { childList: true, subtree: true });
  barWithin(document.body);
  addEventListener("click", refuse, true);
}

function barWithin(root) {
  for (const one of [root, ...root.querySelectorAll("[data-needs]")]) {
    const scope = one.dataset?.needs;
    if (!scope || may(scope)) continue;
    one.setAttribute("aria-disabled", "true");
    one.title = reason(scope);
  }
}

/** A press of a barred button, by mouse, key or Enter in its form, does nothing but say why. */
function refuse(event) {
  const button = event.target.closest?.("[data-needs][aria-disabled]");
  if (!button) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  toast(reason(button.dataset.needs), { kind: "error" });
}

const reason = (scope) => t("roles.needs", { role: t(`role.${ROLE_OF[scope]}`), name: me.name, own: t(`role.${me.role}`) });
