// Shortcuts, and the dialog that lists them.

import { $, el } from "./dom.js";

/** @param actions [[key, words, run]]; letters work wherever nothing is typed, arrows where nothing uses them */
export function shortcuts(actions) {
  const dialog = $("help");
  $("shortcuts").append(
    ...[...actions, ["?", "this list"]].map(([key, words]) =>
      el("div", {}, el("dt", {}, el("kbd", {}, name(key))), el("dd", {}, words)),
    ),
  );
  $("help-open").addEventListener("click", () => dialog.showModal());
  $("help-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
  document.addEventListener("keydown", (event) => {
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      event.defaultPrevented ||
      document.querySelector("dialog[open]")
    )
      return;
    const { tagName, type } = event.target;
    const control = tagName === "INPUT" && !["range", "radio", "checkbox"].includes(type);
    const typing = control || ["SELECT", "TEXTAREA"].includes(tagName);
    if (typing || (event.key.startsWith("Arrow") && tagName === "INPUT")) return;
    if (event.key === "?") dialog.showModal();
    const action = actions.find(([key]) => key === (event.key.length === 1 ? event.key.toLowerCase() : event.key));
    if (!action) return;
    event.preventDefault();
    action[2]();
  });
}

const name = (key) => ({ ArrowLeft: "←", ArrowRight: "→" })[key] ?? key.toUpperCase();
