"""Documents as sequences of tokens, batches of them with a layer's activations, and token ids as texts for the viewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadPrompt, BadTranscoders
from circuit_tracer_cli.features.tally import Batch, Events, Hashes, context_hashes
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.tokens import Tokens, chat_text
from circuit_tracer_cli.transcoders.weights import all_finite


class Sequencer:
    """Cuts documents into sequences.

    Args:
        model: The model, whose tokenizer and rules for the first token are used.
        length: Largest number of tokens of a sequence, including special ones.
    """

    def __init__(self, model: ReplacementModel, length: int) -> None:
        self.model = model
        self.lead = _required_lead(model)
        self.size = max(1, min(length, model.model.shape.n_ctx) - max(1, len(self.lead)))

    def sequences(self, text: str) -> Iterator[Tokens]:
        """The document's tokens in pieces, each with the tokens that the model requires first. Raises BadPrompt."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise BadPrompt("the document contains a lone surrogate, which isn't a character") from None
        ids = self.model.tokenizer.encode(text, add_special_tokens=False)
        for start in range(0, len(ids), self.size):
            yield self.model.tokenize([*self.lead, *ids[start : start + self.size]])


def _required_lead(model: ReplacementModel) -> list[int]:
    """Tokens that the model's prompts must begin with (for an instruction-tuned Gemma 3), otherwise none."""
    try:
        model.tokenize("a")
    except BadPrompt:
        tokens = model.tokenize(chat_text(model.tokenizer, "a"))
        return [int(token) for token in tokens.ids[: len(tokens.zero_positions)]]
    return []


BATCH_TOKENS = 2048
BATCH_DOCUMENTS = 32
_LOGIT_ELEMENTS = 2**27
_DENSE_ELEMENTS = 2**26


def make_batch(sequences: Sequence[Tokens], start: int, left: int) -> Batch:
    """The batch of some sequences, the first of which begins at token `start` of the corpus."""
    ids = [tokens.ids.cpu().numpy().astype(np.int32) for tokens in sequences]
    lengths = np.array([len(part) for part in ids])
    hashes: list[Hashes] = [context_hashes(part, left) for part in ids]
    zeroed = [np.isin(np.arange(len(tokens)), list(tokens.zero_positions)) for tokens in sequences]
    return Batch(
        tokens=np.concatenate(ids),
        sequence=np.repeat(np.arange(len(ids)), lengths),
        starts=start + np.cumsum(lengths) - lengths,
        hashes=np.concatenate(hashes),
        zeroed=np.concatenate(zeroed),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Sequences that go through the model together: their indices, and their ids padded on the right."""

    numbers: tuple[int, ...]
    lengths: tuple[int, ...]
    ids: Tensor  # (batch, pos)


def feature_inputs(model: ReplacementModel, sequences: Sequence[Tokens], layers: range) -> dict[int, Tensor]:
    """For each layer, the values at the read point, `(token, d_model)`, of all sequences one after the other."""
    lengths = [len(tokens) for tokens in sequences]
    ends = np.cumsum(lengths)
    found: dict[int, Tensor] = {}
    for part in _parts(sequences, max(1, min(BATCH_TOKENS, _LOGIT_ELEMENTS // model.model.shape.d_vocab))):
        inputs = model.model.feature_inputs(part.ids, model.transcoders.feature_input_hook)
        for layer in layers:
            x = inputs[layer]
            if layer not in found:
                found[layer] = x.new_empty(int(ends[-1]), x.shape[-1])
            for row, (number, length) in enumerate(zip(part.numbers, part.lengths, strict=True)):
                found[layer][ends[number] - length : ends[number]] = x[row, :length]
    return found


def _parts(sequences: Sequence[Tokens], most_tokens: int) -> Iterator[_Part]:
    """Sequences of similar length together, up to a number of tokens with padding, but at least one sequence."""
    order = sorted(range(len(sequences)), key=lambda number: (len(sequences[number]), number))
    while order:
        n = 1
        while n < len(order) and (n + 1) * len(sequences[order[n]]) <= most_tokens:
            n += 1
        numbers, order = tuple(order[:n]), order[n:]
        ids = [sequences[number].ids for number in numbers]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=int(ids[0][0]))
        yield _Part(numbers, tuple(len(part) for part in ids), padded)


def layer_events(model: ReplacementModel, layer: int, x: Tensor, batch: Batch) -> Events | None:
    """The non-zero activations of a layer for its inputs `x (token, d_model)`; None if there are none.

    Raises BadTranscoders if one is NaN or infinite.
    """
    zeroed = torch.from_numpy(batch.zeroed).to(x.device)
    block = max(1, _DENSE_ELEMENTS // model.transcoders.d_transcoder)
    positions, features, values = [], [], []
    for start in range(0, len(x), block):
        acts = model.transcoders.encode_layer(x[start : start + block], layer)
        if not all_finite(acts):
            raise BadTranscoders(
                f"activations of layer {layer} are NaN or infinite",
                hint="float16 overflows easily: try --dtype bfloat16 or float32",
            )
        acts[zeroed[start : start + block]] = 0
        position, feature = acts.nonzero(as_tuple=True)
        positions.append((position + start).cpu())
        features.append(feature.cpu())
        values.append(acts[position, feature].float().cpu())
    if not any(len(part) for part in values):
        return None
    position, feature, value = torch.cat(positions), torch.cat(features), torch.cat(values)
    return Events.of(position.numpy(), feature.numpy(), value.numpy(), batch.sequence)
