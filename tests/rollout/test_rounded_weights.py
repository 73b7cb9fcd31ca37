"""Weights in another dtype while sampling. What comes back is what was there."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import linear
from torch.nn.parallel import DistributedDataParallel

from grao.compat.torch_packed_linear import packed_linears
from grao.rollout.rounded_weights import rounded_weights

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def made(rng: torch.Generator, inputs: int = 64, outputs: int = 48, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    for p in layer.parameters():
        p.copy_(torch.randn(p.shape, generator=rng))
    return layer


class Tied(nn.Module):
    """An embedding with its head, a norm in float64, a buffer, and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8).double())
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.head.twin = self.embed.weight
        self.register_buffer("frequencies", torch.rand(8))
        self.ids = nn.Parameter(torch.arange(3), requires_grad=False)


@pytest.fixture
def tied() -> Tied:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tied()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in model.state_dict().items()}


def assert_same(model: nn.Module, before: dict[str, Tensor]) -> None:
    after = model.state_dict()
    assert list(after) == list(before)
    for name, x in before.items():
        assert after[name].dtype == x.dtype
        assert torch.equal(after[name], x)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    store = distributed.FileStore(os.fspath(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class TestWeightsIn:
    def test_rounded_within_and_as_they_were_afterwards(self, tied: Tied) -> None:
        """Oracle: torch's rounding within, the state before bit by bit after; buffers and ids never change."""
        before, parameters = state(tied), dict(tied.named_parameters())
        places = {name: p.data_ptr() for name, p in parameters.items()}
        with rounded_weights(tied, torch.bfloat16):
            for name, x in tied.state_dict().items():
                rounded = name not in ("frequencies", "ids")
                assert torch.equal(x, before[name].bfloat16() if rounded else before[name])
                assert x.dtype == (torch.bfloat16 if rounded else before[name].dtype)
        assert_same(tied, before)
        assert all(p is parameters[name] for name, p in tied.named_parameters())
        assert {name: p.data_ptr() for name, p in tied.named_parameters()} == places

    def test_after_an_error(self, tied: Tied) -> None:
        """Oracle: the state before, bit by bit."""
        before = state(tied)
        with pytest.raises(KeyError), rounded_weights(tied, torch.bfloat16):
            raise KeyError
        assert_same(tied, before)

    def test_where_rounding_fails(self, tied: Tied, monkeypatch: pytest.MonkeyPatch) -> None:
        """Oracle: the state before, bit by bit; memory runs out at the third tensor."""
        before, to, calls = state(tied), Tensor.to, []

        def fails_at_the_third(self: Tensor, *args: object, **kwargs: object) -> Tensor:
            calls.append(self)
            if len(calls) == 3:
                raise RuntimeError("not enough memory")
            return to(self, *args, **kwargs)

        monkeypatch.setattr(Tensor, "to", fails_at_the_third)
        with pytest.raises(RuntimeError, match="not enough memory"), rounded_weights(tied, torch.bfloat16):
            pass
        monkeypatch.undo()
        assert_same(tied, before)

    def test_ties_hold(self, tied: Tied) -> None:
        """Oracle: identity; one object, one copy of its numbers, within and afterwards."""
        with rounded_weights(tied, torch.bfloat16):
            assert tied.head.weight is tied.embed.weight
            assert tied.head.twin is tied.embed.weight
            assert type(tied.head.weight) is nn.Parameter
            assert len(list(tied.parameters())) == 6
        assert tied.head.weight is tied.embed.weight

    def test_none_and_the_same_dtype_change_nothing(self, tied: Tied) -> None:
        """Oracle: identity; the very same storage."""
        places = [p.data_ptr() for p in tied.parameters()]
        with rounded_weights(tied, None):
            assert [p.data_ptr() for p in tied.parameters()] == places
        with rounded_weights(tied.embed, torch.float32):
            assert [p.data_ptr() for p in tied.parameters()] == places

    @pytest.mark.parametrize("had_gradients", [True, False])
    def test_training_goes_on(self, rng: torch.Generator, had_gradients: bool) -> None:
        """Oracle: a twin that was never rounded: gradients, hooks and weights after two steps, bit by bit."""
        x = torch.randn(3, 64, generator=rng)
        layers = [made(rng)]
        layers.append(copy.deepcopy(layers[0]))
        optimisers = [torch.optim.AdamW(layer.parameters(), lr=0.1) for layer in layers]
        fired: list[list[int]] = [[], []]
        for layer, fires in zip(layers, fired, strict=True):
            layer.weight.register_hook(lambda _, fires=fires: fires.append(0))
            layer.weight.register_post_accumulate_grad_hook(lambda _, fires=fires: fires.append(1))
        for step in range(2):
            for twin, (layer, optimiser) in enumerate(zip(layers, optimisers, strict=True)):
                if step or had_gradients:
                    with torch.enable_grad():
                        layer(x).square().sum().backward()
                if twin == 0:
                    with rounded_weights(layer, torch.bfloat16):
                        layer(x.bfloat16())
                if layer.weight.grad is not None:
                    optimiser.step()
        for name, p in layers[0].named_parameters():
            assert torch.equal(p, layers[1].get_parameter(name))
            assert torch.equal(p.grad, layers[1].get_parameter(name).grad)
        assert fired[0] == fired[1] == [0, 1] * (1 + had_gradients)

    def test_gradients_are_still_shared_between_processes(self, one_process: None, rng: torch.Generator) -> None:
        """Oracle: counting; DDP hands its buckets over after every backward pass, rounding in between or not."""
        layer, handed_over = made(rng), []
        wrapped = DistributedDataParallel(layer)

        def hand_over(_, bucket):
            handed_over.append(bucket.index())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        wrapped.register_comm_hook(None, hand_over)
        for steps in (1, 2, 3):
            with torch.enable_grad():
                wrapped(torch.ones(3, 64)).sum().backward()
            assert len(handed_over) == steps
            with rounded_weights(layer, torch.bfloat16):
                layer(torch.ones(3, 64).bfloat16())

    def test_shards_are_refused(self, one_process: None, rng: torch.Generator) -> None:
        """Oracle: the message; a shard is no weight, and FSDP would look in vain for the one it gathered. Packing
        leaves shards alone; and training goes on."""
        model = nn.Sequential(made(rng, 8, 8), made(rng, 8, 8))
        mesh = distributed.init_device_mesh("cpu", (1,))
        for module in (*model, model):
            fully_shard(module, mesh=mesh)
        with pytest.raises(ValueError, match=r"sharded.*bfloat16"), rounded_weights(model, torch.bfloat16):
            pass
        with rounded_weights(model, None), packed_linears(model) as count:
            assert count == 0
            model(torch.ones(3, 8))
        with torch.enable_grad():
            model(torch.ones(3, 8)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_packed_in_the_dtype_within(self, rng: torch.Generator) -> None:
        """Oracle: `linear` of the rounded weights; a layer is packed as it is when packing begins."""
        layer, x = made(rng), torch.randn(3, 64, generator=rng).bfloat16()
        expected = linear(x, layer.weight.bfloat16(), layer.bias.bfloat16())
        with rounded_weights(layer, torch.bfloat16), packed_linears(layer):
            found = layer(x)
        assert found.dtype == torch.bfloat16
        assert ((found - expected).abs() <= 2.0**-7 * expected.abs() + 2.0**-6).all()
