"""What a server could give (docs/models.md): traces that are sent as source, run here by nnsight's simulation of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.builders import PROMPT, backend, new_model, number_tokenizer


@pytest.mark.filterwarnings("ignore")
def test_a_trace_that_is_sent_gives_the_frozen_pass(tmp_path: Path) -> None:
    pytest.importorskip("nnsight")
    from nnsight import TransformersModel

    new_model("llama").save_pretrained(tmp_path)
    number_tokenizer().save_pretrained(tmp_path)
    model = TransformersModel(
        str(tmp_path), task="text-generation", attn_implementation="eager", dispatch=True
    )
    ids, seen = torch.tensor([PROMPT]), {}
    for layer in range(3):  # one block a job: what is saved stands in names of its own
        with model.trace(ids, remote="local"):
            block = model.model.layers[layer]
            before = block.input_layernorm.input.save()
            pattern = block.self_attn.output[1].save()
            between = block.post_attention_layernorm.input.save()
            read = block.mlp.input.save()
            written = block.mlp.output.save()
        seen[layer] = before, pattern, between, read, written
    with model.trace(ids, remote="local"):
        embedded = model.model.embed_tokens.output.save()
        final = model.model.norm.input.save()
        logits = model.lm_head.output.save()
    ours = backend("llama", name="nnsight")
    frozen = ours.frozen_pass(torch.tensor(PROMPT), "mlp.hook_in", "hook_mlp_out")
    for layer, want in enumerate(frozen.layers):
        before, pattern, between, read, written = (value[0] for value in seen[layer])
        weights = ours.weights.layers[layer]
        torch.testing.assert_close(weights.ln1.scale(before), want.ln1_scale)
        torch.testing.assert_close(weights.ln2.scale(between), want.ln2_scale)
        torch.testing.assert_close(pattern, want.pattern)
        torch.testing.assert_close(read, want.feature_input)
        torch.testing.assert_close(written, want.feature_output)
    torch.testing.assert_close(embedded[0], frozen.embed)
    torch.testing.assert_close(ours.weights.ln_final.scale(final[0]), frozen.ln_final_scale)
    torch.testing.assert_close(logits[0, -1], frozen.logits)
