/* A menu below a button: arrow keys, Enter, Escape; a press anywhere else closes it. */

import { h } from "./dom.js";

let close = () => {};

/** `entries` are `{label, run, disabled, checked}`, null for a line between them. */
export function openMenu(button, entries) {
  const again = button.getAttribute("aria-expanded") === "true";
  close();
  if (again) return;
  const items = entries.map((entry) => (entry === null ? h("div", { role: "separator" }) : item(entry)));
  const menu = h("div", { class: "menu", role: "menu", "aria-label": button.getAttribute("aria-label") }, ...items);
  const away = (event) => !menu.contains(event.target) && !button.contains(event.target) && close();
  close = () => {
    const inside = menu.contains(document.activeElement);
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", away, true);
    window.removeEventListener("resize", close);
    if (inside) button.focus();
    close = () => {};
  };
  menu.addEventListener("keydown", walk);
  document.body.append(menu);
  putBelow(menu, button);
  button.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", away, true);
  window.addEventListener("resize", close);
  menu.querySelector("[role^=menuitem]:not([disabled])")?.focus();
}

function item({ label, run, disabled, checked }) {
  return h(
    "button",
    {
      type: "button",
      role: checked === undefined ? "menuitem" : "menuitemcheckbox",
      "aria-checked": checked === undefined ? null : String(checked),
      tabindex: "-1",
      disabled: disabled ?? false,
      onclick: () => {
        close();
        run();
      },
    },
    label,
  );
}

function putBelow(menu, button) {
  const [box, size] = [button.getBoundingClientRect(), menu.getBoundingClientRect()];
  const top = box.bottom + size.height + 6 > window.innerHeight ? Math.max(4, box.top - size.height - 2) : box.bottom + 2;
  menu.style.top = `${top}px`;
  menu.style.left = `${Math.max(4, Math.min(box.left, window.innerWidth - size.width - 6))}px`;
}

function walk(event) {
  event.stopPropagation();
  if (event.key === "Escape" || event.key === "Tab") {
    if (event.key === "Escape") event.preventDefault();
    return close();
  }
  const items = [...event.currentTarget.querySelectorAll("[role^=menuitem]:not([disabled])")];
  const at = items.indexOf(document.activeElement);
  const next = {
    ArrowDown: items[(at + 1) % items.length],
    ArrowUp: items[(at - 1 + items.length) % items.length],
    Home: items[0],
    End: items.at(-1),
  }[event.key];
  if (!next) return;
  event.preventDefault();
  next.focus();
}
