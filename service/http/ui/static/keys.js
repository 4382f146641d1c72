// The dialog that asks for a key, where the server wants one.

import { key } from "./api.js";
import { $ } from "./dom.js";

let asking = null; // the dialog is one, however many requests are refused

/** Run `work`; while it is refused for want of a key, ask for one and run it again. */
export async function withKey(work) {
  for (let refused = ""; ;) {
    try {
      const done = await work();
      $("forget").hidden = !key.get();
      return done;
    } catch (error) {
      if (error.status !== 401) throw error;
      refused = key.get() ? "This key is not known to the server." : "";
      key.forget();
    }
    await (asking ??= askForKey(refused).finally(() => (asking = null)));
  }
}

function askForKey(refused) {
  const dialog = $("key-dialog");
  $("key-error").hidden = !refused;
  $("key-error").textContent = refused;
  if (!dialog.open) dialog.showModal();
  return new Promise((done) => {
    const submit = (event) => {
      event.preventDefault();
      if (!$("key").value.trim()) return;
      key.set($("key").value.trim());
      $("key").value = "";
      stop();
      dialog.close();
      done();
    };
    const stay = (event) => event.preventDefault(); // nothing works without a key
    const stop = () => {
      $("key-form").removeEventListener("submit", submit);
      dialog.removeEventListener("cancel", stay);
    };
    $("key-form").addEventListener("submit", submit);
    dialog.addEventListener("cancel", stay);
  });
}
