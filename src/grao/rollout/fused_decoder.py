"""A group decoder whose steps are those of `grao.compat.transformers_llama_step`."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

from grao.compat.transformers_llama_step import LlamaStep
from grao.rollout.decoder import GroupDecoder
from grao.rollout.group_attention import attend_to_groups
from grao.rollout.group_cache import Visibility


class FusedDecoder(GroupDecoder):
    """A `GroupDecoder` with fused steps; prompts go through the model itself. The weights must not change."""

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)
        self._step = LlamaStep(model)

    def step(self, ids_N: Tensor) -> Tensor:
        """Append one token to every row; returns [N, V] logits of the next one."""
        visibility = Visibility(None)

        def attend(layer: nn.Module, q_NJRD: Tensor, key_NJD: Tensor, value_NJD: Tensor) -> Tensor:
            return attend_to_groups(layer, q_NJRD, key_NJD, value_NJD, self._cache, visibility)

        logits = self._step.logits(ids_N, self._positions(), attend)
        self._cache.advance()
        return logits
