/* Every panel of the page: where it goes, its title, and the function (element, store, services) => dispose. */

import { compare } from "./compare.js";
import { connections } from "./connections.js";
import { featureDetail } from "./feature-detail.js";
import { heads } from "./heads.js";
import { interventions } from "./interventions.js";
import { linkControls } from "./link-controls.js";
import { linkGraph } from "./link-graph.js";
import { nodeList } from "./node-list.js";
import { notesPanel } from "./notes.js";
import { paths } from "./paths.js";
import { scatter } from "./scatter.js";
import { subgraphControls } from "./subgraph-controls.js";
import { subgraph } from "./subgraph.js";

export const PANELS = Object.freeze([
  { name: "link-graph", area: "graph", title: "Attribution graph", mount: linkGraph, controls: linkControls },
  { name: "subgraph", area: "subgraph", title: "Subgraph", mount: subgraph, controls: subgraphControls },
  { name: "connections", area: "side", title: "Connections", mount: connections, tab: true },
  { name: "nodes", area: "side", title: "Nodes", mount: nodeList, tab: true },
  { name: "paths", area: "side", title: "Paths", mount: paths, tab: true },
  { name: "scatter", area: "side", title: "Scatter", mount: scatter, tab: true },
  { name: "heads", area: "side", title: "Heads", mount: heads, tab: true },
  { name: "compare", area: "side", title: "Compare", mount: compare, tab: true },
  { name: "interventions", area: "side", title: "Interventions", mount: interventions, tab: true },
  { name: "feature", area: "feature", title: "Feature", mount: featureDetail },
  { name: "notes", area: "feature", title: "Notes", mount: notesPanel },
]);
