"""The critic: the value of the state before every token.

Its backbone is the policy's, or a copy of it. So it reads groups as the policy does: as a stream, each prompt once,
where the policy can be streamed, else by padded rows.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from grao.compat.transformers_attention import AttentionRefusedError
from grao.groups import GroupBatch
from grao.policy.lora import has_adapters
from grao.policy.scorer import scoring_in_use
from grao.policy.stream_attention import attention_over
from grao.policy.token_layout import member_rows, token_stream

logger = logging.getLogger(__name__)

CriticKind = Literal["shared", "separate"]

FILE = "critic.safetensors"
"""The file that `Critic.save` writes beside the policy, so that the exported policy is an ordinary causal LM."""


class Critic(nn.Module):
    """V_φ(s) = wᵀ h(s) + b, with h(s) the last hidden state of a language model on the state s = (q, o_<t).

    w and b start at 0, so V = 0 before training, and are float32 at least.

    Args:
        model: The policy as it is now, ready to be trained, not wrapped by a distributed engine.
        kind: Whose hidden states.
            `shared`: the policy's own. Only a vector is added, and the value loss also trains the policy's backbone.
            `values` is one more forward pass of the backbone, outside the policy's own `forward`: an engine that
            gathers weights there (FSDP) does not see it.
            `separate`: those of a copy of the policy's backbone, made at construction, with adapters merged and all
            weights trained. It takes the memory of another model; the value loss leaves the policy alone.
    """

    def __init__(self, model: Any, kind: CriticKind) -> None:
        super().__init__()
        if kind not in get_args(CriticKind):
            raise ValueError(f"critic is {kind!r}; it must be one of {', '.join(get_args(CriticKind))}")
        self.kind = kind
        self.backbone: Any = _copy_of_backbone(model) if kind == "separate" else None
        self._scoring = scoring_in_use(model)
        weights = next(model.parameters())
        dtype = torch.promote_types(weights.dtype, torch.float32)
        width = model.config.get_text_config().hidden_size
        self.head = nn.Linear(width, 1, device=weights.device, dtype=dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def restart(self, model: Any) -> None:
        """Start over from the policy as it is now: V = 0, and a separate critic copies the policy's backbone again."""
        with torch.no_grad():
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
            if self.backbone is not None:
                self.backbone.load_state_dict(_copy_of_backbone(model).state_dict())

    def values(self, model: Any, batch: GroupBatch) -> Tensor:
        """Return V_φ of the state before every unmasked member token, 0 where masked: [P, M, T], differentiable.

        Args:
            model: The policy, not wrapped by a distributed engine; a separate critic does not use it.
            batch: Groups; a member whose mask is all False costs nothing. Mask the given members, whose values no
                method needs.
        """
        values_PMT: Tensor = self(model, batch)
        return values_PMT

    def forward(self, model: Any, batch: GroupBatch) -> Tensor:
        """Return `values`; a wrapper of the critic (DDP) sees this call."""
        backbone = _backbone_of(model) if self.backbone is None else self.backbone
        hidden_KD = self._states(backbone, batch)
        with torch.autocast(hidden_KD.device.type, enabled=False):  # autocast would run the head in half precision
            values_K = self.head(hidden_KD.to(self.head.weight.dtype))[:, 0]
        zeros_PMT = values_K.new_zeros(batch.mask_PMT.shape)
        return zeros_PMT.masked_scatter(batch.mask_PMT, values_K)

    def _states(self, backbone: Any, batch: GroupBatch) -> Tensor:
        """Return the last hidden state before every unmasked token: [K, D]; of one token where there are none."""
        if not bool(batch.mask_PMT.any()):  # one token keeps the graph, and with it DDP's hooks, alive
            return backbone(input_ids=batch.prompt_ids_PS[:1, :1], use_cache=False).last_hidden_state[0]
        if self._scoring != "padded":
            try:
                return _stream_states(backbone, batch)
            except AttentionRefusedError as refusal:
                if self._scoring == "stream":
                    raise AttentionRefusedError(
                        f"the critic cannot read a stream: {refusal}. Set model.scoring to auto or padded"
                    ) from refusal
                self._scoring = "padded"
                logger.warning("the critic reads padded rows, not a stream: %s", refusal)
        return _padded_states(backbone, batch)

    def save(self, directory: Path | str) -> Path:
        """Write the critic's own weights to `critic.safetensors` in a directory, and return the file."""
        file = Path(directory) / FILE
        weights = {name: weight.detach().contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, file, metadata={"kind": self.kind})
        return file

    def load(self, directory: Path | str) -> None:
        """Load the weights that `save` wrote, in place.

        Raises:
            ValueError: There is no such file, or it holds another kind of critic or the critic of another model.
        """
        file = Path(directory) / FILE
        if not file.is_file():
            raise ValueError(
                f"{directory} holds no {FILE}. Give a checkpoint of a run that was trained with a critic."
            )
        with safe_open(file, framework="pt") as stored:
            kind = (stored.metadata() or {}).get("kind")
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
        if kind != self.kind:
            raise ValueError(
                f"{file} holds a {kind!r} critic, but this run's is {self.kind!r}. Set critic.kind to {kind!r}."
            )
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{file} holds the critic of another model: {error}") from error


def _stream_states(backbone: Any, batch: GroupBatch) -> Tensor:
    stream = token_stream(batch)
    assert stream is not None
    with attention_over(backbone.config, stream.segments):
        return backbone(**stream.inputs()).last_hidden_state[0, stream.places_K]


def _padded_states(backbone: Any, batch: GroupBatch) -> Tensor:
    rows = member_rows(batch)
    assert rows is not None
    return backbone(input_ids=rows.ids_NL, use_cache=False).last_hidden_state.flatten(0, 1)[rows.places_K]


def _backbone_of(model: Any) -> Any:
    """Return a causal LM without its head, adapters in place."""
    return (model.get_base_model() if has_adapters(model) else model).base_model


def _copy_of_backbone(model: Any) -> Any:
    """Return a copy of a causal LM's backbone, adapters merged, all of it to be trained."""
    if has_adapters(model):
        backbone = copy.deepcopy(model).merge_and_unload().base_model
    else:
        backbone = copy.deepcopy(model.base_model)
    backbone.requires_grad_(True)
    backbone.zero_grad(set_to_none=True)
    return backbone
