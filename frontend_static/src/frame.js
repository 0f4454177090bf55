/* The page's panels, their tabs, and the bars between them that can be dragged. */

import { h } from "./dom.js";
import { clamp } from "./scales.js";
import { remember, remembered } from "./theme.js";

const KEY = "circuit-tracer-splits";
const DEFAULTS = { columns: 0.6, left: 0.58, right: 0.48 };

/** Mounts all panels into `main`; returns a function that disposes of them. */
export function mountPanels(main, store, panels, services) {
  const areas = new Map();
  const disposers = panels.map((panel) => {
    const area = areas.get(panel.area) ?? makeArea(panel.area, areas);
    const body = h("div", {
      class: `panel-body panel-${panel.name}`,
      role: panel.tab ? "tabpanel" : null,
      "aria-labelledby": panel.tab ? `tab-${panel.name}` : null,
    });
    area.bodies.append(body);
    if (panel.tab) tabList(area).append(tabButton(store, panel, body));
    else area.head.append(h("h2", {}, panel.title));
    if (panel.controls) area.head.append(h("div", { class: "controls" }, ...panel.controls(store)));
    return panel.mount(body, store, services);
  });
  main.append(...[...areas.values()].map((area) => area.element));
  const release = addSplitters(main);
  return () => [...disposers, release].forEach((dispose) => dispose());
}

function makeArea(name, areas) {
  const head = h("header", { class: "panel-head" });
  const bodies = h("div", { class: "panel-bodies" });
  const area = {
    head,
    bodies,
    element: h("section", { class: `panel area-${name}`, "aria-label": name }, head, bodies),
  };
  areas.set(name, area);
  return area;
}

function tabList(area) {
  area.tabs ??= area.head.appendChild(h("div", { class: "tabs", role: "tablist" }));
  return area.tabs;
}

function tabButton(store, panel, body) {
  const button = h(
    "button",
    {
      class: "tab",
      role: "tab",
      type: "button",
      id: `tab-${panel.name}`,
      onclick: () => store.set({ tab: panel.name }),
    },
    panel.title,
  );
  const render = () => {
    const on = store.get("tab") === panel.name;
    button.setAttribute("aria-selected", String(on));
    body.hidden = !on;
  };
  store.subscribe(["tab"], render);
  render();
  return button;
}

function addSplitters(main) {
  const splits = { ...DEFAULTS, ...readSplits() };
  const apply = () => {
    for (const [name, value] of Object.entries(splits))
      main.style.setProperty(`--split-${name}`, String(value));
    bars?.forEach((bar) =>
      bar.setAttribute("aria-valuenow", String(Math.round(splits[bar.dataset.split] * 100))),
    );
  };
  let bars = null;
  bars = Object.keys(DEFAULTS).map((name) => splitter(main, name, splits, apply));
  main.append(...bars);
  apply();
  return () => bars.forEach((bar) => bar.remove());
}

function splitter(main, name, splits, apply) {
  const upright = name === "columns";
  const move = (value) => {
    splits[name] = clamp(value, 0.15, 0.85);
    apply();
    remember(KEY, JSON.stringify(splits));
  };
  const bar = h("div", {
    class: `splitter split-${name}`,
    role: "separator",
    tabindex: "0",
    "aria-label": "Resize panels",
    "data-split": name,
    "aria-valuemin": "15",
    "aria-valuemax": "85",
    "aria-orientation": upright ? "vertical" : "horizontal",
    onpointerdown: (event) => bar.setPointerCapture(event.pointerId),
    onpointermove: (event) => {
      if (!bar.hasPointerCapture(event.pointerId)) return;
      const box = main.getBoundingClientRect();
      move(upright ? (event.clientX - box.left) / box.width : (event.clientY - box.top) / box.height);
    },
    ondblclick: () => move(DEFAULTS[name]),
    onkeydown: (event) => {
      const step = { ArrowLeft: -0.02, ArrowUp: -0.02, ArrowRight: 0.02, ArrowDown: 0.02 }[event.key];
      if (step === undefined) return;
      event.stopPropagation();
      event.preventDefault();
      move(splits[name] + step);
    },
  });
  return bar;
}

function readSplits() {
  try {
    const kept = JSON.parse(remembered(KEY) ?? "{}");
    return Object.fromEntries(
      Object.entries(kept).filter(([name, value]) => name in DEFAULTS && value >= 0.15 && value <= 0.85),
    );
  } catch {
    return {};
  }
}
