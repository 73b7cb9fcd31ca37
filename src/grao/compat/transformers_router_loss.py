"""The load-balancing loss of mixtures of experts.

Relies on `transformers.models.mixtral.modeling_mixtral.load_balancing_loss_func`, on the names of experts and their
coefficient in configs, and on backbones that return `router_logits` for `output_router_logits=True`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def router_coefficient(model: Any) -> float:
    """Return the weight of the load-balancing loss in the model's config; 0 for families without it.

    `output_router_logits` does not matter: released mixtures of experts have it off, as it only says what `forward`
    returns, and keep the coefficient that they were trained with.
    """
    config = model.config.get_text_config()
    if not hasattr(config, "output_router_logits"):
        return 0.0  # a family without this loss, such as DeepSeek-V3
    return float(getattr(config, "router_aux_loss_coef", 0.0) or 0.0)


def router_loss(model: Any, router_logits: Any, real_tokens: Tensor | None) -> Tensor:
    """Return the loss of Switch Transformers (arXiv 2101.03961, Eq. 4–6), over real tokens only."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = model.config.get_text_config()
    experts = getattr(config, "num_experts", None) or config.num_local_experts
    loss = load_balancing_loss_func(router_logits, experts, config.num_experts_per_tok, real_tokens)
    assert isinstance(loss, Tensor), "a model that routes returns its router logits"
    return loss
