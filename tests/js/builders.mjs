/* A small graph: token → two features → logit, with an error node and negative links. */

export const cantor = (layer, feature) => ((layer + feature) * (layer + feature + 1)) / 2 + feature;

function node(id, type, layer, position, more = {}) {
  return {
    node_id: id,
    feature_type: type,
    layer: String(layer),
    ctx_idx: position,
    feature: 0,
    clerp: "",
    influence: 0.5,
    activation: null,
    ...more,
  };
}

export function graphJson(overrides = {}) {
  return {
    metadata: {
      slug: "t",
      prompt_tokens: ["<bos>", " a", "\n"],
      prompt: "a",
      node_threshold: 0.8,
      schema_version: 1,
      ...overrides.metadata,
    },
    qParams: {},
    nodes: overrides.nodes ?? [
      node("0_5_1", "cross layer transcoder", 0, 1, {
        feature: cantor(0, 5),
        influence: 0.2,
        activation: 2,
        clerp: "first",
      }),
      node("1_7_2", "cross layer transcoder", 1, 2, { feature: cantor(1, 7), influence: 0.81 }),
      node("1_-1_2", "mlp reconstruction error", 1, 2, { feature: -1, influence: 0.6 }),
      node("E_3_1", "embedding", "E", 1, { influence: 0.9 }),
      node("3_42_2", "logit", 3, 2, {
        feature: 42,
        influence: null,
        token_prob: 0.25,
        clerp: 'Output " "x" (y)" (p=0.250)',
      }),
      node("3_43_2", "logit", 3, 2, {
        feature: 43,
        influence: null,
        token_prob: 0.5,
        clerp: 'Output "b" (p=0.500)',
      }),
    ],
    links: overrides.links ?? [
      { source: "E_3_1", target: "0_5_1", weight: 3 },
      { source: "0_5_1", target: "1_7_2", weight: -1 },
      { source: "E_3_1", target: "1_7_2", weight: 3 },
      { source: "1_7_2", target: "3_42_2", weight: 2 },
      { source: "1_-1_2", target: "3_42_2", weight: -2 },
      { source: "0_5_1", target: "3_43_2", weight: 0.5 },
      { source: "gone", target: "3_42_2", weight: 9 },
      { source: "0_5_1", target: "gone", weight: 9 },
    ],
  };
}
