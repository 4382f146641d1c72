// Elements without a framework.

export const $ = (id) => document.getElementById(id);

/** An element with properties, `data-` and `aria-` attributes, and children (strings become text). */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set an element's text where it is another: a screen reader speaks at every change. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Call `run` once it has not been asked for during `wait` milliseconds. */
export function debounce(run, wait) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, wait);
  };
}

/** Tabs as the ARIA Authoring Practices have them: one stop of Tab, arrows between them. */
export function tabs(list, choose) {
  const buttons = [...list.querySelectorAll('[role="tab"]')];
  const select = (button, focus) => {
    for (const other of buttons) {
      other.setAttribute("aria-selected", String(other === button));
      other.tabIndex = other === button ? 0 : -1;
    }
    if (focus) button.focus();
    choose(button.id.replace("tab-", ""));
  };
  list.addEventListener("click", (event) => {
    if (buttons.includes(event.target)) select(event.target);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const shown = buttons.filter((button) => !button.hidden);
    const at = shown.indexOf(event.target);
    if (!step || at < 0) return;
    event.preventDefault();
    select(shown[(at + step + shown.length) % shown.length], true);
  });
  return (name) => select(buttons.find((button) => button.id === `tab-${name}`));
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit++;
  }
  return `${count >= 100 || unit === 0 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

export const percent = (share) =>
  share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
export const milliseconds = (ms) => (ms >= 100 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(1) : ms.toFixed(2));
