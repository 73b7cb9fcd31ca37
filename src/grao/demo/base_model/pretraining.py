"""Train a small causal language model from scratch and save it as an ordinary transformers directory."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from grao.demo.base_model.model_spec import ModelSpec

LossOn = Literal["completion", "everything"]
"""Which tokens are learnt: only the completion's, or the prompt's too."""

RECORD = "base_model.json"
"""How the weights were trained. A directory with this file may be replaced."""

IGNORED = -100
"""Label of a token that is not learnt: the default of `cross_entropy`."""


@dataclass(frozen=True, slots=True)
class TrainedBase:
    """A trained base model."""

    directory: Path
    parameters: int
    final_loss: float
    """Mean over the last 5 % of the steps, in nats per learnt token, without the router's loss."""
    seconds: float
    """Wall-clock seconds of the optimiser steps."""
    too_long: int
    """Number of pairs left out because they exceed `max_position_embeddings`."""

    @property
    def summary(self) -> str:
        """Return a line for the terminal."""
        left_out = f", {self.too_long} pairs left out as too long" if self.too_long else ""
        return (
            f"base model: {self.directory}, {self.parameters:,} parameters, "
            f"loss {self.final_loss:.2f} nats per token, {self.seconds:.0f} s{left_out}"
        )


@dataclass(frozen=True, slots=True)
class TokenisedPair:
    """Ids of a prompt with its completion and the end of sequence; the first `prompt` ids are the prompt's."""

    ids: list[int]
    prompt: int


def train_base_model(
    pairs: Sequence[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    spec: ModelSpec,
    directory: str | Path,
    *,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 4e-3,
    weight_decay: float = 0.01,
    warmup_steps: int = 20,
    loss_on: LossOn = "completion",
    length_pool: int = 1,
    seed: int = 0,
    quiet: bool = False,
) -> TrainedBase:
    """Fit completions to prompts with cross-entropy and AdamW in float32: linear warm-up, then a cosine to 5 %.

    Prompt and completion are tokenised separately and joined, and every completion ends with the end of sequence, as
    in alignment. The same arguments give the same weights, bit for bit, on the same machine and number of threads.
    The global random generator does not change.

    Args:
        pairs: (prompt, completion) texts, visited in shuffled order as often as `steps` needs.
        steps: Optimiser steps of `batch_size` pairs.
        length_pool: Number of batches sorted by length together, to save padding; 1 sorts nothing. If length tells
            the kind of answer, sorted batches hold one kind each and a model learns worse from them (two-digit sums:
            1 % right with 50, 20 % with 1).
        quiet: Show no progress bar.

    Raises:
        FileExistsError: If `directory` holds something that was not written here.
        ValueError: If there is no pair, or none fits `spec.max_position_embeddings`.
    """
    directory = Path(directory)
    _check_directory(directory)
    rows, too_long = tokenise_pairs(pairs, tokenizer, spec.max_position_embeddings)
    model = new_model(spec, tokenizer, seed)
    lengths = [len(row.ids) for row in rows]
    batches = row_batches(lengths, batch_size, steps, length_pool, torch.Generator().manual_seed(seed))
    tensors = (pad_rows([rows[i] for i in batch], tokenizer.pad_token_id, loss_on) for batch in batches)

    started = time.perf_counter()
    with _progress(steps, quiet) as advance:
        losses = _fit(model, tensors, steps, learning_rate, weight_decay, warmup_steps, advance)
    seconds = time.perf_counter() - started

    tail = losses[-max(1, steps // 20) :]
    record = {
        "model": asdict(spec),
        "pairs": len(rows),
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "warmup_steps": warmup_steps,
        "loss_on": loss_on,
        "length_pool": length_pool,
        "seed": seed,
    }
    _save(model, tokenizer, directory, record)
    return TrainedBase(directory, model.num_parameters(), sum(tail) / len(tail), seconds, too_long)


def _check_directory(directory: Path) -> None:
    if directory.is_file():
        raise FileExistsError(f"{directory} is a file: name a directory for the base model")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / RECORD).exists():
        raise FileExistsError(
            f"{directory} is not empty and has no {RECORD}, so it may hold something else: name another directory, or "
            "empty this one"
        )


def tokenise_pairs(
    pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase, longest: int
) -> tuple[list[TokenisedPair], int]:
    """Return the pairs of at most `longest` tokens, and the number of longer ones."""
    if not pairs:
        raise ValueError("no (prompt, completion) pairs were given: a base model needs at least one")
    prompts = tokenizer([prompt for prompt, _ in pairs], add_special_tokens=False)["input_ids"]
    completions = tokenizer([completion for _, completion in pairs], add_special_tokens=False)["input_ids"]
    rows = [TokenisedPair([*p, *c, tokenizer.eos_token_id], len(p)) for p, c in zip(prompts, completions, strict=True)]
    fitting = [row for row in rows if len(row.ids) <= longest]
    if not fitting:
        shortest = min(len(row.ids) for row in rows)
        raise ValueError(
            f"the shortest pair has {shortest} tokens, but max_position_embeddings is {longest}: raise it"
        )
    return fitting, len(rows) - len(fitting)


def new_model(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """Return a model with random weights."""
    # transformers draws the first weights from the global generator: fork it, so that its state does not change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(spec.config(tokenizer), dtype=torch.float32)


def row_batches(
    lengths: Sequence[int], size: int, steps: int, pool: int, generator: torch.Generator
) -> Iterator[list[int]]:
    """Yield `steps` batches of `size` row numbers. An epoch may end within a batch.

    Rows for `pool` batches are sorted by length and dealt out in shuffled order: less padding, and batches still
    differ between epochs.
    """
    order: list[int] = []
    dealt = 0
    while dealt < steps:
        while len(order) < pool * size:
            order += torch.randperm(len(lengths), generator=generator).tolist()
        rows, order = sorted(order[: pool * size], key=lengths.__getitem__), order[pool * size :]
        for place in torch.randperm(pool, generator=generator).tolist()[: steps - dealt]:
            yield rows[place * size : (place + 1) * size]
            dealt += 1


def pad_rows(rows: Sequence[TokenisedPair], pad_token_id: int, loss_on: LossOn) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, attention mask and labels, each [batch, longest], padded on the right."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad_token_id)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for i, row in enumerate(rows):
        learnt_from = row.prompt if loss_on == "completion" else 0
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        mask[i, : len(row.ids)] = 1
        labels[i, learnt_from : len(row.ids)] = ids[i, learnt_from : len(row.ids)]
    return ids, mask, labels


def _fit(
    model: PreTrainedModel,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    steps: int,
    learning_rate: float,
    weight_decay: float,
    warmup_steps: int,
    advance: Callable[[float], None],
) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_share(step, steps, warmup_steps)
    )
    losses = []
    model.train()
    for ids, mask, labels in batches:
        loss, router_loss = training_losses(model, ids, mask, labels)
        optimizer.zero_grad()
        (loss + router_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        advance(losses[-1])
    model.eval()
    return losses


def learning_rate_share(step: int, steps: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate: a linear rise times half a cosine from 1 to 0.05."""
    rise = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return rise * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)


def training_losses(model: PreTrainedModel, ids: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of learnt tokens in nats, and the weighted balancing loss of a sparse model."""
    # Padding on the right needs no mask in a causal model; only the balance of experts must not count it.
    balance = getattr(model.config, "router_aux_loss_coef", 0.0)
    sparse = {"output_router_logits": True, "attention_mask": mask} if balance else {}
    output = model(input_ids=ids, use_cache=False, **sparse)
    logits = output.logits[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED)
    return loss, balance * output.aux_loss if balance else loss.new_zeros(())


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path, record: dict[str, object]
) -> None:
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _progress(steps: int, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Show a bar with the current loss, on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("base model"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    loss_column = TextColumn("loss {task.fields[loss]:.3f}")
    hidden = quiet or not console.is_terminal
    with Progress(*columns, loss_column, console=console, disable=hidden) as bar:
        task = bar.add_task("", total=steps, loss=math.nan)
        yield lambda loss: bar.update(task, advance=1, loss=loss)
