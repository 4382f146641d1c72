// Images from outside: dropped, pasted, opened.

import { $ } from "./dom.js";
import { ImageFile } from "./images.js";

/** Call `add(images)` with what comes in, `refuse(sentence)` where something comes that is no file. */
export function takeFiles(add, refuse) {
  const take = (files) => add([...files].map((file) => new ImageFile(file.name || "pasted.png", file)));
  const input = $("file");
  $("open").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take(input.files);
    input.value = ""; // so that the same file can be opened again
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files);
  });
  let depth = 0; // of elements that the pointer has entered while dragging
  const over = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
    else
      refuse("That was no file. Save the image first, then drop the file: this page fetches nothing from elsewhere.");
  });
}
