/* The page's panels: areas on a grid, their heads and tabs, and the borders between them. */

import { keepLayout, raise, toggleMaximised, useArrangement } from "./arrangement.js";
import { h } from "./dom.js";
import { useBorders } from "./frame-borders.js";
import { useDocking } from "./frame-docking.js";
import { COLUMNS, ROWS, frontOf } from "./grid.js";
import { moveHandle } from "./panel-menu.js";

/** Mounts all panels into `main`; returns a function that disposes of them. */
export function mountPanels(main, store, panels, services) {
  const mounted = new Map(panels.map((panel) => [panel.name, mountPanel(panel, store, services)]));
  const stopArranging = useArrangement(store, panels.map(({ name, area }) => ({ name, area })));
  const areas = h("div", { class: "areas" });
  main.append(areas);
  const docking = useDocking(main, store, (layout) => keepLayout(store, layout));
  const stopBorders = useBorders(main, store);
  const frame = createFrame(areas, store, mounted, { docking, services });
  const disposers = [
    store.subscribe(["layout"], frame.build),
    store.subscribe(["shown", "maximised"], frame.show),
    ...[...mounted.values()].map(({ dispose }) => dispose),
    stopArranging,
    stopBorders,
  ];
  frame.build();
  return () => disposers.forEach((dispose) => dispose());
}

function mountPanel(panel, store, services) {
  const body = h("div", { class: `panel-body panel-${panel.name}`, id: `panel-${panel.name}`, "data-panel": panel.name });
  const controls = h("div", { class: "controls" }, ...(panel.controls?.(store, services) ?? []));
  return { panel, body, controls, dispose: panel.mount(body, store, services) };
}

function createFrame(areas, store, mounted, context) {
  let shown = [];

  function build() {
    const focused = areas.contains(document.activeElement) ? document.activeElement : null;
    shown = store.get("layout").map((area) => makeArea(store, area, mounted, context));
    areas.replaceChildren(...shown.map((area) => area.element));
    show();
    refocus(areas, focused);
  }

  function show() {
    const [raised, maximised] = [store.get("raised"), store.get("maximised")];
    for (const { area, element, parts } of shown) {
      const front = frontOf(area, raised);
      const large = area.names.includes(maximised);
      const [x, y, w, rows] = large ? [0, 0, COLUMNS, ROWS] : [area.x, area.y, area.w, area.h];
      element.style.left = `calc(${(x / COLUMNS) * 100}% + var(--gap) / 2)`;
      element.style.top = `calc(${(y / ROWS) * 100}% + var(--gap) / 2)`;
      element.style.width = `calc(${(w / COLUMNS) * 100}% - var(--gap))`;
      element.style.height = `calc(${(rows / ROWS) * 100}% - var(--gap))`;
      element.classList.toggle("maximised", large);
      element.hidden = maximised !== null && !large;
      for (const { name, tab, body, controls } of parts) {
        body.hidden = controls.hidden = name !== front;
        tab?.setAttribute("aria-selected", String(name === front));
        tab?.setAttribute("tabindex", name === front ? "0" : "-1");
      }
    }
  }

  return { build, show };
}

/** Moving elements takes the focus away from them. */
function refocus(areas, focused) {
  if (!focused || document.activeElement === focused) return;
  if (areas.contains(focused)) return focused.focus({ preventScroll: true });
  const { handle, border } = focused.dataset;
  if (handle) areas.querySelector(`[data-handle="${handle}"]`)?.focus();
  if (border) areas.querySelector(`[data-border="${border}"]`)?.focus();
}

function makeArea(store, area, mounted, { docking, services }) {
  const tabbed = area.names.length > 1;
  const parts = area.names.map((name) => {
    const { panel, body, controls } = mounted.get(name);
    const tab = tabbed ? tabButton(store, panel, docking) : null;
    setRole(body, panel, tabbed);
    return { name, panel, body, controls, tab };
  });
  const title = tabbed
    ? h("div", { class: "tabs", role: "tablist", "aria-label": "Panels" }, ...parts.map(({ tab }) => tab))
    : h("h2", {}, parts[0].panel.title);
  const handle = moveHandle(store, area, { panels: parts.map(({ panel }) => panel), docking, services });
  const head = h("div", { class: "panel-head" }, title, ...parts.map(({ controls }) => controls), handle);
  head.addEventListener("dblclick", (event) => {
    if (!event.target.closest("button, input, select, a, label"))
      toggleMaximised(store, frontOf(area, store.get("raised")));
  });
  docking.draggable(head, area.names);
  const names = parts.map(({ panel }) => panel.title).join(", ");
  const element = h(
    "section",
    { class: "panel", "aria-label": names, "data-names": area.names.join(" ") },
    head,
    h("div", { class: "panel-bodies" }, ...parts.map(({ body }) => body)),
  );
  return { area, element, parts };
}

function setRole(body, panel, tabbed) {
  if (tabbed) {
    body.setAttribute("role", "tabpanel");
    body.setAttribute("aria-labelledby", `tab-${panel.name}`);
  } else {
    body.removeAttribute("role");
    body.removeAttribute("aria-labelledby");
  }
}

function tabButton(store, panel, docking) {
  const button = h(
    "button",
    {
      class: "tab",
      role: "tab",
      type: "button",
      id: `tab-${panel.name}`,
      "aria-controls": `panel-${panel.name}`,
      onclick: () => raise(store, panel.name),
      onkeydown: (event) => walkTabs(event, button),
    },
    panel.title,
  );
  docking.draggable(button, [panel.name]);
  return button;
}

function walkTabs(event, button) {
  const step = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
  const next = step && button[step];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  next?.click();
  next?.focus();
}
