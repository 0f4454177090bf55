/* The handle of an area: drag it to move the panel, press it for a menu, or move and resize with the arrow keys. */

import {
  isDefault,
  joinTabs,
  nudgeBorder,
  resetLayout,
  saveLayoutWithGraph,
  swapTowards,
  tearOff,
  toggleMaximised,
} from "./arrangement.js";
import { h, icon } from "./dom.js";
import { frontOf } from "./grid.js";
import { openMenu } from "./menu.js";

const ARROWS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

/** The button at the end of an area's head. `services.figures` maps panels to functions that save a picture of them. */
export function moveHandle(store, area, { panels, docking, services }) {
  const front = () => frontOf(area, store.get("raised"));
  const button = h(
    "button",
    {
      class: "icon handle",
      type: "button",
      "data-handle": area.names[0],
      "aria-haspopup": "menu",
      "aria-expanded": "false",
      "aria-label": `Panel menu: ${panels.map((panel) => panel.title).join(", ")}`,
      title: "Drag to move the panel. Arrow keys move it, with Shift resize it, Enter opens its menu",
      onclick: () => openMenu(button, entries(store, area, front(), panels, services)),
      onkeydown: (event) => {
        const direction = ARROWS[event.key];
        if (!direction) return;
        event.preventDefault();
        event.stopPropagation();
        if (event.shiftKey) nudgeBorder(store, front(), direction);
        else swapTowards(store, front(), direction);
      },
    },
    icon("grip"),
  );
  docking.draggable(button, area.names);
  return button;
}

function entries(store, area, front, panels, services) {
  const layout = store.get("layout");
  const title = panels.find((panel) => panel.name === front).title;
  const large = store.get("maximised") !== null;
  const others = layout.filter((other) => other !== area);
  const figure = services.figures?.get(front);
  return [
    ...(figure ? ["svg", "png", "pdf"].map((kind) => ({ label: `Save as ${kind.toUpperCase()}`, run: () => figure({ kind }) })) : []),
    figure && { label: "Save for a paper …", run: () => services.askFigure(figure) },
    figure && null,
    { label: large ? "Restore" : "Maximise", run: () => toggleMaximised(store, front) },
    ...(area.names.length > 1 ? [{ label: `Move “${title}” out of the tabs`, run: () => tearOff(store, front) }] : []),
    ...others.map((other) => ({
      label: `Join the tabs of “${titleOf(store, services, other)}”`,
      run: () => joinTabs(store, [front], other.names[0]),
    })),
    null,
    store.get("shape") === "wide" && {
      label: "Keep this layout in the graph's file",
      run: () => saveLayoutWithGraph(store),
    },
    { label: "Reset the layout", disabled: isDefault(store), run: () => resetLayout(store) },
  ].filter((entry) => entry !== undefined && entry !== false);
}

function titleOf(store, services, area) {
  return services.titles.get(frontOf(area, store.get("raised")));
}
