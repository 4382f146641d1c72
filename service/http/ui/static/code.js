// The request as lines to copy, in the language that is chosen.

import { $, tabs } from "./dom.js";
import * as snippets from "./snippets.js";

const WRITE = {
  curl: (asked) => snippets.curl(asked),
  python: (asked) => snippets.requests(asked),
  json: (_, result) => (result ? snippets.json(result) : ""),
};

export class Code {
  #language = "curl";
  #asked = null;
  #result = null;

  /** @param say told what a screen reader should say */
  constructor(say) {
    this.say = say;
    tabs(document.querySelector(".request .tabs"), (language) => {
      this.#language = language;
      $("code").setAttribute("aria-labelledby", `tab-${language}`);
      this.#write();
    });
    $("copy").addEventListener("click", () => this.copy());
  }

  /** @param asked as `snippets.curl` has it, or null; `result` is its answer, once there is one */
  show(asked, result) {
    this.#asked = asked;
    this.#result = result;
    this.#write();
  }

  #write() {
    $("code").textContent = this.#asked ? WRITE[this.#language](this.#asked, this.#result) : "";
  }

  async copy() {
    try {
      await navigator.clipboard.writeText($("code").textContent);
    } catch {
      getSelection().selectAllChildren($("code")); // no clipboard without https: the old way
      document.execCommand("copy");
    }
    $("copy").textContent = "Copied";
    this.say("Copied.");
    setTimeout(() => ($("copy").textContent = "Copy"), 1500);
  }
}
