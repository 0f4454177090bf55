"""What `--json` prints, as types: the JSON Schema of each command is made from these. More keys may follow in later versions.

Probabilities and shares are 0..1, sizes bytes, times seconds. Node ids are those of the JSON graph file. Imports no torch.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

Number = int | float
Object = dict[str, Any]


class Prediction(TypedDict):
    """A likely next token: its text, vocabulary index and probability."""

    token: str
    id: int
    probability: float


class Target(Prediction):
    """A target, its `kind` (token, direction or feature) and where it is read; what is no token has a weight as probability."""

    node: str
    kind: str
    layer: int
    position: int


class Counts(TypedDict):
    """How many nodes of each kind, and edges."""

    features: int
    errors: int
    tokens: int
    logits: int
    edges: int


class Thresholds(TypedDict):
    """The thresholds that a graph was pruned with."""

    node_threshold: float
    edge_threshold: float


class NodeRecord(TypedDict):
    """One of the strongest nodes; what doesn't apply to its kind is missing. `influence` is its share of all influence."""

    node_id: str
    kind: Literal["feature", "error", "token", "logit"]
    position: int
    layer: NotRequired[int]
    feature: NotRequired[int]
    activation: NotRequired[float]
    label: str | None
    influence: float


class EdgeRecord(TypedDict):
    """An edge: direct effect, share of the influence that passes it, share of twelve prunings that keep it (null: unknown)."""

    source: str
    target: str
    names: list[str]
    weight: float
    share: float
    stability: float | None


class PathRecord(TypedDict):
    """A chain of edges from a token to a target; `sign` is 1 if it raises the target, -1 if it lowers it."""

    nodes: list[str]
    names: list[str]
    labels: list[str | None]
    weights: list[float]
    strength: float
    share: float
    sign: Literal[1, -1]


class Show(TypedDict):
    """A graph: `show`, and what `demo`, `prune` and `report` begin with. `root` is the node asked about, null for the targets."""

    prompt: str
    prompt_tokens: list[str] | None
    model: str
    transcoders: str | list[str] | None
    predictions: list[Prediction]
    targets: list[Target]
    root: str | None
    active_features: int
    counts: Counts
    replacement_score: float
    completeness_score: float
    edges_left_out: int
    pruning: Thresholds | None
    strongest_nodes: list[NodeRecord]
    strongest_edges: list[EdgeRecord]
    strongest_paths: list[PathRecord]


class Prune(Show):
    """A graph after pruning, and how many edges it had before."""

    edges_before: int | None


class HeadValue(TypedDict):
    """What a head adds to an edge; `position` is where it reads (with `leave`, where it sends to), missing for `through`."""

    layer: int
    head: int
    position: NotRequired[int]
    value: float


class Hop(TypedDict):
    """What arrives over so many heads."""

    n: int
    value: float


class Chain(TypedDict):
    """What arrives over these heads, one after the other."""

    heads: list[str]
    value: float


class Named(TypedDict):
    """A part of a score that no node carries."""

    name: str
    value: float


class NodeValue(TypedDict):
    """What a node adds."""

    node: str
    value: float


class PairValue(TypedDict):
    """What two nodes add together, one on the side of the query, one on that of the key."""

    q: str
    k: str
    value: float


class KeyWeight(TypedDict):
    """Where a head looks: its pattern, 0..1, and its score before soft cap, mask and softmax."""

    position: int
    value: float
    score: NotRequired[float | None]


class Attend(TypedDict):
    """Why a head looks where it looks. Pairs, constants and rest add up to `score`; without a key there are only the patterns."""

    layer: int
    head: int
    query: int
    key: int | None
    against: int | str | None
    score: float | None
    pattern: float | list[KeyWeight]
    constants: list[Named]
    q: list[NodeValue]
    k: list[NodeValue]
    pairs: list[PairValue]
    rest: float


class EdgeHeads(TypedDict):
    """The heads of an edge: `heads`, `hops` or `chains`, by what was asked for. With `rest` they add up to `total`."""

    source: str
    target: str
    weight: float
    by: Literal["arrive", "leave", "through", "hops", "chains"]
    heads: NotRequired[list[HeadValue]]
    hops: NotRequired[list[Hop]]
    chains: NotRequired[list[Chain]]
    rest: float
    why: NotRequired[Attend | None]


class Heads(TypedDict):
    """Which heads carry edges."""

    edges: list[EdgeHeads]


class GroupRecord(TypedDict):
    """A supernode: its name, node ids and numbers (`influence`, `coherence`, `stability`; null where one has no meaning)."""

    name: str
    nodes: list[str]
    kept: bool
    numbers: dict[str, float | None]


class Group(TypedDict):
    """Supernodes, how they were made, and what they cover."""

    algorithm: str
    version: int
    level: float
    across_positions: bool
    acyclic: bool
    numbers: dict[str, Number | None]
    groups: list[GroupRecord]


class EdgeWithHeads(TypedDict):
    """An edge with the heads that `heads --all` left in the graph."""

    source: str
    target: str
    names: list[str]
    weight: float
    heads: list[HeadValue]
    rest: float


class Made(TypedDict):
    """How a graph was made; null where it doesn't say."""

    command: str | None
    created: str | None
    settings: Object
    versions: Object
    backend: str | None
    dtype: str | None
    device: str | None
    engine: str | None


class Report(Show):
    """Everything that a report says; null for what the graph doesn't hold."""

    groups: list[Object] | None
    heads: list[EdgeWithHeads] | None
    validation: Object | None
    made: Made


class HiddenInput(TypedDict):
    """A source that isn't a node: its direct effect and its activation."""

    node: str
    weight: float
    activation: float


class Hidden(TypedDict):
    """What a graph doesn't show of a node's input; `share` is of everything that enters, by absolute weight."""

    share: float
    count: int
    total: float
    strongest: list[HiddenInput]


class Expand(TypedDict):
    """What was added to a graph; `hidden` with `--inputs-of`."""

    added: list[str]
    nodes: int
    edges: int
    inputs_of: NotRequired[str | None]
    hidden: NotRequired[Hidden]


class TokenTarget(TypedDict):
    """A token target as a node."""

    node: str
    token: str | None
    id: int | None
    probability: float | None


class Push(TypedDict):
    """A source: what it adds to the list, and its direct effects on both logits; `path` leads from a token to it."""

    node: str
    name: str
    label: str | None
    value: float
    answer: float
    other: float
    path: list[str] | None


class Pushes(TypedDict):
    """A list with the sum and the number of all of its sources."""

    sum: float
    count: int
    strongest: list[Push]


class WhyNotLists(TypedDict):
    """The five lists; their sums and `rest` add up to `difference`."""

    both: Pushes
    answer_only: Pushes
    other_down: Pushes
    other_only: Pushes
    answer_down: Pushes


class Run(TypedDict):
    """Logit of the answer minus logit of the other with the first `count` features off: predicted, attention pinned, free."""

    count: int
    predicted: float
    frozen: float | None
    open: float
    top: str


class FlipRecord(TypedDict):
    """What turning features off does; `features` in the order in which they are turned off."""

    features: list[str]
    before: float
    predicted_count: int | None
    fewest: int | None
    runs: list[Run]


class WhyNot(TypedDict):
    """Why the answer beats another token."""

    answer: TokenTarget
    other: TokenTarget
    difference: float
    lists: WhyNotLists
    rest: float
    features_left_out: int
    flip: FlipRecord | None


class Failure(TypedDict):
    """A prompt that couldn't be traced."""

    prompt: str
    error: str
    hint: str | None


class Batch(TypedDict):
    """How far a batch is."""

    total: int
    done: int
    failed: int
    running: int
    waiting: int
    failures: list[Failure]


class Change(TypedDict):
    """Why a node counts differently: values in both graphs, and what comes by its activation and by its paths."""

    node: str
    kind: str
    a: float
    b: float
    by_activation: float | None
    by_path: float | None


class Diff(TypedDict):
    """Two graphs compared."""

    alignment: Object
    shared: list[str]
    only_a: list[str]
    only_b: list[str]
    pruned_only: list[str]
    scores: dict[str, float | None]
    changes: list[Change]


class Merge(TypedDict):
    """Many graphs as one: how many, how positions were matched, and what is kept."""

    n: int
    level: str
    slots: list[str]
    nodes: int
    edges: int
    in_all: int
    groups: dict[str, int]


class Table(TypedDict):
    """Where the tables are, and how many graphs were added."""

    tables: str
    written: int


class Check(TypedDict):
    """A check of a validation; `unit` null: a plain number."""

    name: str
    label: str
    value: float | None
    unit: str | None
    verdict: Literal["pass", "warn", "fail", "info"]
    detail: str


class Phase(TypedDict):
    """How much of a phase was measured."""

    phase: str
    planned: int
    done: int


class Validate(TypedDict):
    """A graph measured against interventions; a part that wasn't measured is null."""

    checks: list[Check]
    prompt: str
    n_features: int
    n_unknown: int
    seed: int
    direct: Object | None
    ablation: Object | None
    edges: Object | None
    faithfulness: list[Object]
    scores: Object | None
    precision: Object | None
    phases: list[Phase]
    heads: Object | None
    attention: Object | None


class TokenChange(TypedDict):
    """A next token before and after the edits."""

    token: int
    text: str
    before: float
    after: float
    logit_before: float
    logit_after: float
    rank_before: int
    rank_after: int


class NextToken(TypedDict):
    """The next token before and after the edits; `kl` is the divergence of the two distributions in nats."""

    tokens: list[TokenChange]
    kl: float


class FeatureChange(TypedDict):
    """A feature before and after the edits."""

    layer: int
    position: int
    feature: int
    before: float
    after: float


class Intervene(TypedDict):
    """What edits do."""

    prompt: str
    edits: list[str]
    tokens: list[str]
    features: list[FeatureChange]
    next_token: NextToken
    watched: list[FeatureChange]
    continuation_before: str | None
    continuation_after: str | None
    heads: list[Object]


class DevicePlan(TypedDict):
    """What a trace needs of one device, and what is free there."""

    name: str
    layers: int
    peak_bytes: Number
    free_bytes: Number | None


class Estimate(TypedDict):
    """Memory and time of a trace."""

    tokens: int
    active_features: Number
    active_per_position: Number
    active_per_position_known: bool
    active_per_position_from: str
    feature_nodes: Number
    nodes: Number
    device: str
    host_peak_bytes: Number
    device_peak_bytes: Number | None
    host_free_bytes: Number | None
    device_free_bytes: Number | None
    scratch_bytes: Number
    devices: list[DevicePlan]
    fits: bool
    seconds: dict[str, float]
    total_seconds: float


class Doctor(TypedDict):
    """Versions, machine, folders and whether the parts are whole."""

    versions: Object
    machine: Object
    folders: Object
    parts: Object


class Models(TypedDict):
    """The models that can be traced, and how each is proven: `doctor --models`."""

    models: list[Object]
    proofs: dict[str, str]


class FeaturesBuild(TypedDict):
    """Feature examples that were made."""

    directory: str
    documents: int
    skipped: int
    tokens: int
    layers: list[int]
    features: int
    dead: int
    labelled: int
    bytes: int


class FeaturesInfo(TypedDict):
    """What a folder of feature examples holds: features by layer."""

    directory: str
    features: dict[str, int]
    labels: int
    about: Object


class CachedSet(TypedDict):
    """A converted set; `damaged` with `--verify`."""

    reference: str
    folder: str
    complete: bool
    bytes: int
    damaged: NotRequired[list[str]]


class KnownSet(TypedDict):
    """A published set: `cache list --known`; null where a size isn't known."""

    reference: str
    alias: str | None
    model: str
    kind: str
    activation: str
    n_layers: int
    d_model: int
    d_transcoder: int | None
    parameters: int | None


SCHEMAS: dict[str, Any] = {
    "show": Show,
    "prune": Prune,
    "report": Report,
    "demo": Show | list[Object],
    "heads": Heads,
    "attend": Attend,
    "group": Group,
    "expand": Expand,
    "why-not": WhyNot,
    "batch": Batch,
    "diff": Diff,
    "merge": Merge,
    "table": Table,
    "query": list[Object],
    "validate": Validate,
    "intervene": Intervene,
    "estimate": Estimate,
    "doctor": Doctor | Models,
    "features build": FeaturesBuild,
    "features info": FeaturesInfo,
    "cache list": list[CachedSet] | list[KnownSet],
    "cache info": CachedSet,
}
"""What each command prints with `--json`."""


def schema_of(command: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what a command prints with `--json`. Raises KeyError for another command."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(SCHEMAS[command]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
