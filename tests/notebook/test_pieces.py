"""Tables, charts and figures: their numbers, and that no text gets out of its place."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
import torch

from circuit_tracer_cli import notebook
from circuit_tracer_cli.attribution.targets import CustomTarget
from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.influence import compute_node_influence
from circuit_tracer_cli.notebook import InterventionGraph, Supernode
from circuit_tracer_cli.notebook.html import Html, bar, table
from tests.builders import number_tokenizer, replacement
from tests.graph.builders import random_graph

EVIL = "<img src=x onerror=alert(1)>\"'&"
LOGITS = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125]]))


def words(piece: Html) -> str:
    """The text without its markup."""
    return re.sub(r"<[^>]*>", " ", piece.content)


def test_every_public_name_is_there() -> None:
    for name in notebook.__all__:
        assert getattr(notebook, name) is not None
    with pytest.raises(AttributeError, match="no_such"):
        _ = notebook.no_such


def test_text_in_tables_is_escaped() -> None:
    shown = table((EVIL,), [(EVIL, Html("<b>kept</b>"))], EVIL).content
    assert "<img" not in shown
    assert shown.count("&lt;img") == 3
    assert "<b>kept</b>" in shown
    assert "width:100.0%" in bar(7).content
    assert "width:0.0%" in bar(-1).content


def test_top_tokens_before_and_after() -> None:
    after = torch.log(torch.tensor([0.125, 0.25, 0.125, 0.5]))
    shown = notebook.display_topk_token_predictions(
        EVIL, LOGITS[None], after, number_tokenizer(), k=2, key_tokens=[(EVIL, 0), ("gone", 3)]
    )
    assert "<img" not in shown.content
    text = words(shown)
    assert "50.000%" in text
    assert "-75.0%" in text
    assert "+300.0%" in text
    assert notebook.get_topk(LOGITS, number_tokenizer(), k=2) == [
        ("0", pytest.approx(0.5)),
        ("1", pytest.approx(0.25)),
    ]
    assert len(notebook.get_topk(LOGITS, number_tokenizer(), k=99)) == 4


def test_token_probabilities() -> None:
    rare = torch.tensor([0.0, -20.0])
    shown = words(notebook.display_token_probs(rare, [0, 1], ["a", EVIL], title=EVIL))
    assert "100.000%" in shown
    assert "2.06e-09" in shown
    assert "-20.000" in shown


def test_generations_highlight_what_is_new() -> None:
    shown = notebook.display_generations_comparison("a<b", ["a<b c"], ["other <i>"]).content
    assert "a&lt;b<mark" in shown
    assert "> c</mark>" in shown
    assert "other &lt;i&gt;" in shown


def test_features_side_by_side_link_where_asked() -> None:
    sets = {"one": [(3, 4, 120)], EVIL: [(1, 2, 3)]}
    plain = notebook.display_top_features_comparison(sets, {"one": [0.5], EVIL: [0.25]})
    assert "3/120@4" in words(plain)
    assert "0.5000" in words(plain)
    linked = notebook.display_top_features_comparison(sets, neuronpedia_model="gemma-2-2b").content
    assert 'href="https://www.neuronpedia.org/gemma-2-2b/3-gemmascope-transcoder-16k/120"' in linked
    assert "<img" not in plain.content + linked
    with pytest.raises(InvalidValue, match="1 features but 2 scores"):
        notebook.display_top_features_comparison({"one": [(3, 4, 120)]}, {"one": [1.0, 2.0]})


def test_attribution_settings() -> None:
    target = CustomTarget("a - b", 0.25, torch.zeros(2))
    shown = words(notebook.display_attribution_config([(" a", 7)], [("difference", target)]))
    assert "25.000%" in shown
    assert "a - b" in shown


def test_top_features_are_those_with_the_largest_influence() -> None:
    graph = random_graph()
    features, scores = notebook.get_top_features(graph, 3)
    influence = compute_node_influence(graph.edges, graph.logit_weights)[: graph.layout.n_features]
    assert scores == pytest.approx(sorted(influence.tolist(), reverse=True)[:3])
    best = int(influence.argmax())
    assert features[0] == tuple(graph.active_features[graph.selected_features[best]].tolist())
    assert notebook.get_top_features(graph, 10**6)[1] == sorted(influence.tolist(), reverse=True)


def test_unembedding_vectors() -> None:
    model = replacement("llama", "plt")
    (vector,) = notebook.get_unembed_vecs(model, [5])
    assert torch.equal(vector, model.W_U[:, 5])
    with pytest.raises(InvalidValue, match="id 48"):
        notebook.get_unembed_vecs(model, [48])
    notebook.cleanup_cuda()


def test_a_chart_draws_its_numbers() -> None:
    chart = notebook.display_ablation_chart(
        {"before": {EVIL: 0.5, "b": 0.25}, EVIL: {EVIL: 0.0, "b": 1.0}},
        {"before": 1.0, EVIL: -2.0},
        title=EVIL,
    )
    root = ET.fromstring(chart.content)
    bars = [e for e in root.iter("rect") if e.find("title") is not None]
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert heights[2] == 0
    assert heights[3] == pytest.approx(2 * heights[0], abs=0.2)
    assert "-2.00" in "".join(root.itertext())
    assert not list(root.iter("img"))
    with pytest.raises(InvalidValue, match="no groups"):
        notebook.display_ablation_chart({})
    with pytest.raises(InvalidValue, match="same names"):
        notebook.display_ablation_chart({"a": {"x": 1.0}}, {"b": 1.0})


def two_hop() -> tuple[InterventionGraph, dict[str, Supernode]]:
    say = Supernode("say Austin", [(1, 2, 0)])
    texas = Supernode("Texas", [(0, 1, 3), (0, 2, 4)], children=[say])
    capital = Supernode("capital", [(0, 0, 1)], children=[say])
    graph = InterventionGraph(
        [[capital, texas], [say]], "Fact: the capital of the state containing Dallas is"
    )
    return graph, {"say": say, "texas": texas, "capital": capital}


def test_a_node_knows_how_much_of_it_is_left() -> None:
    graph, nodes = two_hop()
    before = torch.ones(2, 3, 5)
    before[0, 2, 4] = 0
    for node in nodes.values():
        graph.initialize_node(node, before.to_sparse() if node is nodes["say"] else before)
    after = before.clone()
    after[0, 1, 3], after[1, 2, 0] = 0.25, -1
    nodes["texas"].intervention = "off"
    graph.set_node_activation_fractions(after)
    assert nodes["texas"].activation == pytest.approx(0.25)
    assert nodes["say"].activation == pytest.approx(-1)
    assert nodes["capital"].activation == 1
    assert nodes["texas"].intervention is None
    assert Supernode("a").features is not Supernode("b").features


def test_a_figure_shows_nodes_interventions_and_outputs() -> None:
    graph, nodes = two_hop()
    nodes["texas"].activation, nodes["texas"].intervention = 0.0, "-2x"
    nodes["texas"].replacement_node = Supernode(f"California {EVIL}", children=[nodes["say"]])
    outputs = [(" Sacramento", 0.875), *[(f"{EVIL}{i}", 0.01) for i in range(9)]]
    root = ET.fromstring(notebook.create_graph_visualization(graph, outputs).content)
    shown = " ".join(root.itertext())
    for part in ("Sacramento 88%", "Texas", "-2x", "0%", "say Austin", "California", "containing Dallas is"):
        assert part in shown
    assert f"{EVIL}4" in shown
    assert f"{EVIL}5" not in shown
    assert not list(root.iter("img"))
    thick = [line.attrib["stroke-width"] for line in root.iter("line")]
    assert sorted(thick) == ["2", "4"]
    with pytest.raises(InvalidValue, match="no nodes"):
        notebook.create_graph_visualization(InterventionGraph([], "x"))
