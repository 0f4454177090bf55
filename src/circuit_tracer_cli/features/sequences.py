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
        model: Its tokenizer and its rules about the first token are used.
        length: Most tokens of a sequence, the special ones included.
    """

    def __init__(self, model: ReplacementModel, length: int) -> None:
        self.model = model
        self.lead = _required_lead(model)
        self.size = max(1, min(length, model.model.shape.n_ctx) - max(1, len(self.lead)))

    def sequences(self, text: str) -> Iterator[Tokens]:
        """The document's tokens in pieces, each with what the model wants first. Raises BadPrompt if it can't be tokenised."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise BadPrompt("the document holds half a character (a lone surrogate)") from None
        ids = self.model.tokenizer.encode(text, add_special_tokens=False)
        for start in range(0, len(ids), self.size):
            yield self.model.tokenize([*self.lead, *ids[start : start + self.size]])


def _required_lead(model: ReplacementModel) -> list[int]:
    """Tokens without which the model's prompts are refused (an instruction-tuned Gemma 3's), otherwise none."""
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
    """Sequences that go through the model together: their numbers, and their ids padded on the right."""

    numbers: tuple[int, ...]
    lengths: tuple[int, ...]
    ids: Tensor  # (batch, pos)


def feature_inputs(model: ReplacementModel, sequences: Sequence[Tokens], layers: range) -> dict[int, Tensor]:
    """Per layer the values at the read point, `(token, d_model)`, of all sequences one after the other."""
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
    """Sequences of similar length together, at most so many tokens with padding, but at least one sequence."""
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
    """The activations of a layer that aren't zero, for its inputs `x (token, d_model)`; None if there is none.

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
