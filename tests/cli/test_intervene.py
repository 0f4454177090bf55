"""`intervene` on a tiny model: edits from every source, plans that repeat, faults named before anything is loaded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.attention.prompt import freeze
from circuit_tracer_cli.files import inputs
from circuit_tracer_cli.graph import load_graph
from circuit_tracer_cli.interventions import generate as generation
from circuit_tracer_cli.pipeline import load_model
from circuit_tracer_cli.prepare import prepare
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.types import SilentProgress
from circuit_tracer_cli.validation.attention import ablation_effects
from tests.cli.conftest import PROMPT, Finished, Run, Tiny


@pytest.fixture
def intervene(run: Run, tiny: Tiny) -> Run:
    """`intervene` on the tiny model."""
    return lambda *arguments, **given: run("intervene", *tiny.options, *arguments, **given)


@pytest.fixture
def graph_file(here: Path) -> Path:
    """A graph file with supernodes, as the viewer saves it."""
    values = {
        "metadata": {"slug": "s", "scan": "tiny/plt", "prompt": PROMPT, "prompt_tokens": ["0"]},
        "qParams": {"supernodes": [["Texas", "1_4_3", "0_2_5", "E_3_1"]], "pinnedIds": []},
        "nodes": [],
        "links": [],
    }
    path = here / "g.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.fixture
def bad_plans(here: Path, graph_file: Path) -> None:
    """Plans that can't be run, and a graph of other transcoders."""
    plan = {"format": "circuit-tracer-plan", "format_version": 1, "prompt": PROMPT}
    cell = {"layer": 1, "position": 1, "feature": 4}
    texts = {
        "half.plan": '{"format":',
        "void.plan": "",
        "empty.plan": json.dumps(plan),
        "later.plan": json.dumps({**plan, "format_version": 9}),
        "nan.plan": json.dumps({**plan, "edits": [{**cell, "value": float("nan")}]}),
        "clash.plan": json.dumps({**plan, "edits": ["1/4@1=2", "1/4@0:=3"]}),
        "far.plan": json.dumps({**plan, "edits": ["1/999@1=2"]}),
        "other.plan": json.dumps({**plan, "transcoder_set": "elsewhere", "edits": ["1/4@1=2"]}),
        "other.json": graph_file.read_text(encoding="utf-8").replace("tiny/plt", "tiny/clt"),
    }
    for name, text in texts.items():
        (here / name).write_text(text, encoding="utf-8")


def as_json(done: Finished) -> dict[str, Any]:
    assert done.code == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def test_tables_on_stdout_and_nothing_else(intervene: Run) -> None:
    done = intervene("-p", PROMPT, "--edit", "1/4@3=30", "-e", "0/2@-1=x-1", "--generate", 3)
    assert done.code == 0, done.stderr
    for words in ("Edited features", "1/4@3", "30.000", "Next token", "KL(before ‖ after)", "Continuation"):
        assert words in done.text
    assert "loading the model" in done.stderr
    assert "Continuation" not in intervene("-p", PROMPT, "-e", "1/4@3=30", "-q").text


def test_a_head_turned_off_costs_what_goes_through_it(intervene: Run, tiny: Tiny, raw_graph: Path) -> None:
    """The command's numbers are those that `heads --by through` predicts, up to what all logits share."""
    model = load_model(prepare(TraceRequest(transcoder_set=str(tiny.transcoders))), SilentProgress())
    prompt = freeze(load_graph(raw_graph), model)
    layout, targets = prompt.graph.layout, prompt.graph.logit_targets
    effects = ablation_effects(prompt, prompt.targets(range(layout.logit_offset, layout.n_nodes)))[:, 1, 2]
    text = " ".join(map(str, prompt.graph.input_tokens.tolist()[1:]))
    options = ["--head", "L1H2=off", "--constrained-layers", ":", "--json", "--top-k", 40]
    found = as_json(intervene("-p", text, *options))
    lost = {one["token"]: one["logit_before"] - one["logit_after"] for one in found["next_token"]["tokens"]}
    losses = [lost[target.vocab_idx] for target in targets]
    told = effects.sum(-1).tolist()
    assert [one - losses[0] for one in losses] == pytest.approx([one - told[0] for one in told], abs=2e-5)
    assert max(map(abs, told)) > 1e-3
    assert len(found["heads"]) == prompt.n_pos
    table = intervene("-p", text, "--head", "L1H2@2:=@2")
    assert "Edited heads" in table.text
    assert "L1H2@2" in table.text


def test_the_numbers_are_those_of_the_library(intervene: Run, tiny: Tiny) -> None:
    found = as_json(intervene("-p", PROMPT, "-e", "1/4@3=30", "--json", "--top-k", 2))
    model = load_model(prepare(TraceRequest(transcoder_set=str(tiny.transcoders))), SilentProgress())
    logits, _ = model.feature_intervention(PROMPT, ["1/4@3=30"])
    top = logits[0, -1].double().softmax(-1).topk(1)
    first = found["next_token"]["tokens"][0]
    assert (first["token"], first["after"]) == (int(top.indices), pytest.approx(float(top.values)))
    assert found["features"] == [pytest.approx(found["features"][0])]
    assert found["edits"] == ["1/4@3=30.0"]
    assert found["continuation_after"] is None


def test_a_plan_repeats_the_run(intervene: Run, run: Run, here: Path) -> None:
    first = intervene(
        "-p", PROMPT, "-e", "1/4@3=30", "-e", "0/2@2:=x3", "--constrained-layers", ":2",
        "--no-freeze-attention", "--generate", 4, "--temperature", 1, "--seed", 5, "--json", "--save-plan", "plan.json",
    )  # fmt: skip
    again = run(
        "intervene", "--plan", "plan.json", "--generate", 4, "--temperature", 1, "--seed", 5, "--json"
    )
    assert as_json(first) == as_json(again)
    plan = json.loads((here / "plan.json").read_text())
    assert plan["constrained_layers"] == [0, 2]
    assert plan["freeze_attention"] is False
    assert [path.name for path in here.iterdir()] == ["plan.json"]
    assert as_json(run("intervene", "--plan", "plan.json", "--constrained-layers", ":", "--json")) != as_json(
        first
    )


def test_supernodes_bring_their_prompt(intervene: Run, graph_file: Path) -> None:
    done = intervene("--graph", graph_file, "--supernode", "Texas", "--factor", -2, "--json")
    found = as_json(done)
    assert found["edits"] == ["1/4@3=x-2.0", "0/2@5=x-2.0"]
    assert found["prompt"] == PROMPT
    assert "E_3_1" in done.stderr
    assert (
        as_json(intervene("--graph", graph_file, "--supernode", "Texas", "--json"))["edits"][0] == "1/4@3=off"
    )


def test_the_prompt_may_come_from_stdin(intervene: Run) -> None:
    piped = intervene("-p", "-", "-e", "1/4@3=30", "--json", stdin=PROMPT.encode() + b"\n")
    assert as_json(piped) == as_json(intervene("-p", PROMPT, "-e", "1/4@3=30", "--json"))


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("-p", PROMPT), 2, "nothing to change"),
        (("-e", "1/4@3=30"), 2, "no prompt"),
        (("-p", "", "-e", "1/4@3=30"), 2, "no prompt"),
        (("-p", PROMPT, "-e", "1/4@3"), 2, "edit '1/4@3'"),
        (("-p", PROMPT, "-e", "9/4@3=1"), 1, "layer 9"),
        (("-p", PROMPT, "-e", "1/99@3=1"), 1, "feature 99"),
        (("-p", PROMPT, "-e", "1/4@30=1"), 1, "position 30"),
        (("-p", PROMPT, "-e", "1/4@-30=1"), 1, "position -30"),
        (("-p", PROMPT, "-e", "1/4@30:40=1"), 1, "the slice contains none of the"),
        (("-p", PROMPT, "-e", "1/4@30:=1"), 1, "every edit begins after"),
        (("-p", PROMPT, "-e", "1/4@::0=1"), 2, "step"),
        (("-p", PROMPT, "-e", "a/4@3=1"), 2, "layer 'a'"),
        (("-p", PROMPT, "-e", "1/4@3=nan"), 2, "value 'nan'"),
        (("-p", PROMPT, "-e", "1/4@3=x-inf"), 2, "value 'x-inf'"),
        (("-p", PROMPT, "-e", "1/4@3=1e999"), 2, "value '1e999'"),
        (("-p", PROMPT, "-e", "1/4@3=1", "-e", "1/4@2:=off"), 1, "different values"),
        (("-p", PROMPT, "-e", "1/4@3=1", "--constrained-layers", "2"), 2, "range of layers '2'"),
        (("-p", PROMPT, "-e", "1/4@3=1", "--constrained-layers", "1:9"), 1, "layer 3"),
        (("-p", PROMPT, "-e", "1/4@3=1", "--constrained-layers", "2:1"), 2, "empty"),
        (("-p", PROMPT, "--supernode", "Texas"), 2, "--supernode needs"),
        (("--graph", "g.json"), 2, "--graph needs a supernode"),
        (("--graph", "g.json", "--supernode", "Ohio"), 1, "no supernode 'Ohio'"),
        (("--graph", "g.json", "--supernode", "Texas", "--factor", "big"), 2, "factor 'big'"),
        (("--graph", "none.json", "--supernode", "Texas"), 1, "none.json"),
        (("--plan", "none.json"), 1, "none.json"),
        (("--plan", "g.json"), 1, "the file is not a plan"),
        (("--plan", "half.plan"), 1, "isn't valid JSON"),
        (("--plan", "void.plan"), 1, "isn't valid JSON"),
        (("--plan", "empty.plan"), 1, "has no edits"),
        (("--plan", "later.plan"), 1, "format_version 9"),
        (("--plan", "nan.plan"), 1, "edit '#0'"),
        (("--plan", "clash.plan"), 1, "1/4@1=2.0 and 1/4@0:=3.0"),
        (("--plan", "far.plan"), 1, "feature 999"),
        (("--plan", "other.plan"), 1, "elsewhere"),
        (("--graph", "other.json", "--supernode", "Texas"), 1, "the graph's features are of tiny/clt"),
        (("--graph", "half.plan", "--supernode", "Texas"), 1, "isn't valid JSON"),
        (("-p", PROMPT, "-e", "1/4@3=1", "--generate", "90"), 1, "exceed the model's limit of 64"),
    ],
)
@pytest.mark.usefixtures("graph_file", "bad_plans")
def test_faults_are_named_in_one_line(
    intervene: Run, arguments: tuple[str, ...], code: int, part: str
) -> None:
    done = intervene(*arguments, "--save-plan", "left.json", "-q")
    assert (done.code, done.stdout) == (code, b"")
    assert part in done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert not Path("left.json").exists()


def test_a_plan_for_other_features_is_refused(intervene: Run, run: Run) -> None:
    as_json(intervene("-p", PROMPT, "-e", "1/4@3=30", "--save-plan", "plan.json", "--json"))
    done = run("intervene", "--plan", "plan.json", "-t", "demo")
    assert done.code == 1
    assert "omit --transcoder-set" in done.stderr


@pytest.fixture
def conversing(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny model with a chat template: 0, then 5 behind a system message, 6 around the user's, 7 before the answer."""
    folder = tmp_path / "model"
    shutil.copytree(tiny.model, folder)
    template = (
        "0 {% for m in messages %}{% if m.role == 'system' %}{{ m.content }} 5 {% else %}6 {{ m.content }} 6 {% endif %}"
        "{% endfor %}7 "
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def test_a_conversation_is_tokenised_as_attribution_does(
    run: Run, tiny: Tiny, conversing: Path, here: Path
) -> None:
    same: list[object] = ["-t", tiny.transcoders, "-m", conversing, "-p", "3 4", "--chat"]
    same += ["--system", "9", "--prefill", "8"]
    done = run("intervene", *same, "-e", "1/4@3=30", "--json", "--save-plan", "plan.json")
    found = as_json(done)
    assert found["tokens"] == ["0", "9", "5", "6", "3", "4", "6", "7", "8"]
    assert run("attribute", *same, "--max-n-logits", 2, "-o", "g.safetensors").code == 0
    graph = load_graph("g.safetensors")
    assert graph.input_tokens.tolist() == [int(token) for token in found["tokens"]]
    assert found["prompt"] == graph.input_string
    again = as_json(
        run("intervene", "--plan", "plan.json", "-t", tiny.transcoders, "-m", conversing, "--json")
    )
    assert again == found


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-p", "3", "-e", "1/4@1=1", "--system", "x"], "add --chat"),
        (["-p", "3", "-e", "1/4@1=1", "--prefill", "x"], "add --chat"),
        (["--plan", "plan.json", "--chat"], "--chat needs --prompt"),
        (["-p", "3", "-e", "1/4@1=1", "--device", "cpu", "--device-map", "0-2:cpu"], "--device-map"),
    ],
)
def test_what_is_no_conversation(intervene: Run, arguments: list[str], part: str) -> None:
    done = intervene(*arguments)
    assert done.code == 2
    assert part in done.stderr


def test_a_model_without_a_template_has_no_conversation(intervene: Run) -> None:
    done = intervene("-p", "3", "--chat", "-e", "1/4@1=1")
    assert done.code == 1
    assert "no chat template" in done.stderr


def test_both_backends_answer_alike(intervene: Run) -> None:
    pytest.importorskip("nnsight")
    given = ("-p", PROMPT, "-e", "1/4@3=30", "--json")
    first, second = (as_json(intervene(*given, *more)) for more in ((), ("--backend", "nnsight")))
    assert first["next_token"]["kl"] == pytest.approx(second["next_token"]["kl"], abs=1e-5)


def test_layers_may_be_named_one_by_one(intervene: Run) -> None:
    given = ("-p", PROMPT, "-e", "1/4@3=30", "--json")
    assert as_json(intervene(*given, "--device-map", "0-1:cpu,2:cpu")) == as_json(intervene(*given))


def test_ctrl_c_in_a_generation_leaves_nothing(
    run: Run, tiny: Tiny, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = []
    choose = generation.choose

    def interrupted(*given: Any) -> int:
        chosen.append(1)
        if len(chosen) == 4:
            raise KeyboardInterrupt
        return choose(*given)

    monkeypatch.setattr(generation, "choose", interrupted)
    done = run(
        "intervene", *tiny.options, "-p", "3 41 7", "-e", "1/4@2:=30", "--generate", 20, "--save-plan", "plan.json"
    )  # fmt: skip
    assert (done.code, done.stdout) == (130, b"")
    assert "Traceback" not in done.stderr
    assert list(here.iterdir()) == []
    monkeypatch.setattr(generation, "choose", choose)
    assert run("intervene", *tiny.options, "-p", "3 41 7", "-e", "1/4@2:=30").code == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_plan_from_a_pipe_that_nobody_writes_to_is_given_up(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(here / "plan")
    monkeypatch.setattr(inputs.open_pipe, "__defaults__", (0.1,))
    done = run("intervene", "--plan", "plan")
    assert done.code == 1
    assert "plan is a pipe that no program is writing to" in done.stderr
