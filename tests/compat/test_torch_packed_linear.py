"""Packed linear layers against plain ones; what comes back is what was there."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from grao.compat import torch_packed_linear
from grao.compat.torch_packed_linear import Packed, can_pack, packed_linears

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


def needs_packing(dtype: torch.dtype = torch.float32) -> None:
    with packed_linears(nn.Linear(4, 4).to(dtype)) as count:
        if not count:
            pytest.skip(f"this machine has no packed products in {dtype}")


SHAPES = [(1, 64), (3, 64), (32, 64), (600, 64), (64,), (2, 3, 64), (5, 1, 64), (2, 3, 4, 64), (0, 64)]


class TestPacked:
    @pytest.mark.parametrize("bias", [True, False])
    def test_float32(self, rng: torch.Generator, bias: bool) -> None:
        """Oracle: `linear` in float64, to a relative error of 1e-6; one row and many, any number of dimensions."""
        needs_packing()
        layer = made(rng, bias=bias)
        exact = copy.deepcopy(layer).double()
        with packed_linears(layer) as count:
            assert count == 1
            for shape in SHAPES:
                x = torch.randn(shape, generator=rng)
                found, expected = layer(x), exact(x.double())
                assert (found.shape, found.dtype) == (expected.shape, torch.float32)
                assert (found - expected).norm() <= 1e-6 * expected.norm()

    @pytest.mark.parametrize("bias", [True, False])
    def test_bfloat16(self, rng: torch.Generator, bias: bool) -> None:
        """Oracle: `linear` of the same numbers in float64, rounded once: at most a unit in the last place off.

        With a bias the product may be rounded before the bias is added, half a unit of its own size more.
        """
        needs_packing(torch.bfloat16)
        layer = made(rng, bias=bias).bfloat16()
        exact = copy.deepcopy(layer).double()
        with packed_linears(layer):
            for shape in SHAPES:
                x = torch.randn(shape, generator=rng).bfloat16()
                found, expected = layer(x), exact(x.double())
                assert (found.shape, found.dtype) == (expected.shape, torch.bfloat16)
                size = torch.maximum(expected.abs(), linear(x.double(), exact.weight).abs())
                assert ((found - expected).abs() <= 2.0**-8 * size + 1e-5).all()

    @pytest.mark.parametrize("strides", ["sliced", "transposed", "expanded"])
    def test_inputs_of_any_strides(self, rng: torch.Generator, strides: str) -> None:
        """Oracle: `linear` of a contiguous copy."""
        x = {
            "sliced": torch.randn(5, 2, 64, generator=rng)[:, 1],
            "transposed": torch.randn(64, 5, generator=rng).T,
            "expanded": torch.randn(1, 64, generator=rng).expand(5, 64),
        }[strides]
        layer = made(rng)
        expected = linear(x.contiguous(), layer.weight, layer.bias)
        with packed_linears(layer):
            assert (layer(x) - expected).norm() <= 1e-6 * expected.norm()

    def test_a_weight_that_is_a_view(self, rng: torch.Generator) -> None:
        """Oracle: `linear` with the same weight; transposed and sliced storage, and one weight in two layers."""
        first, second = made(rng, 64, 64), made(rng, 64, 64)
        first.weight = nn.Parameter(torch.randn(64, 128, generator=rng)[:, ::2].T)
        second.weight = first.weight
        x = torch.randn(3, 64, generator=rng)
        expected = linear(linear(x, first.weight, first.bias), second.weight, second.bias)
        with packed_linears(nn.Sequential(first, second)):
            assert (second(first(x)) - expected).norm() <= 2e-6 * expected.norm()

    def test_it_is_the_packed_product_that_is_used(self, rng: torch.Generator) -> None:
        """Oracle: negative control; a weight that is changed within does not count, as the docstring warns."""
        needs_packing()
        layer, x = made(rng), torch.randn(3, 64, generator=rng)
        expected = layer(x)
        with packed_linears(layer):
            layer.weight.zero_()
            assert (layer(x) - expected).norm() <= 1e-6 * expected.norm()
        assert torch.equal(layer(x), layer.bias.expand(3, -1))

    def test_hooks_still_fire(self, rng: torch.Generator) -> None:
        """Oracle: counting, and identity of what the hooks are handed."""
        layer, x = made(rng), torch.randn(3, 64, generator=rng)
        seen: list[Tensor] = []
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        layer.register_forward_hook(lambda _, __, output: seen.append(output))
        with packed_linears(layer):
            y = layer(x)
        assert len(seen) == 2
        assert seen[0] is x
        assert seen[1] is y

    def test_others_are_left_alone(self, rng: torch.Generator) -> None:
        """Oracle: counting; subclasses, other dtypes, other devices, layers without outputs, other forwards."""

        class Doubled(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return 2 * super().forward(x)

        wrapped = made(rng)
        wrapped.forward = lambda x: 3 * linear(x, wrapped.weight)  # type: ignore[method-assign]
        own = wrapped.forward
        model = nn.ModuleDict(
            {
                "subclass": Doubled(64, 48),
                "float64": made(rng).double(),
                "float16": made(rng).half(),
                "elsewhere": nn.Linear(64, 48, device="meta"),
                "nothing": nn.Linear(64, 1),
                "wrapped": wrapped,
            }
        )
        model["nothing"].weight = nn.Parameter(torch.empty(0, 64))
        model["nothing"].bias = None
        x = torch.randn(3, 64, generator=rng)
        before = [model[name](x) for name in ("subclass", "wrapped")]
        with packed_linears(model) as count:
            assert count == 0
            assert torch.equal(model["subclass"](x), before[0])
            assert torch.equal(model["wrapped"](x), before[1])
            assert model["nothing"](x).shape == (3, 0)
        assert wrapped.forward is own

    def test_nothing_is_left_behind(self, rng: torch.Generator) -> None:
        """Oracle: the layers' attributes before; after use, after an error within, and inside another packing."""
        model = nn.Sequential(made(rng), nn.ReLU(), made(rng, 48, 5))
        before = [set(vars(m)) for m in model.modules()]
        with packed_linears(model) as outer, packed_linears(model) as inner:
            assert inner == 0
            model(torch.randn(3, 64, generator=rng))
        assert [set(vars(m)) for m in model.modules()] == before
        with pytest.raises(KeyError), packed_linears(model):
            raise KeyError
        assert [set(vars(m)) for m in model.modules()] == before
        assert outer in (0, 2)

    def test_nothing_is_left_behind_where_packing_fails(
        self, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Oracle: the layers' attributes before; memory runs out at the second of three layers."""
        needs_packing()
        pack, packed = torch_packed_linear.pack, []

        def fails_at_the_second(weight: Tensor) -> Tensor:
            packed.append(weight)
            if len(packed) == 2:
                raise RuntimeError("not enough memory")
            return pack(weight)

        monkeypatch.setattr(torch_packed_linear, "pack", fails_at_the_second)
        model = nn.Sequential(*(made(rng, 8, 8) for _ in range(3)))
        with pytest.raises(RuntimeError, match="not enough memory"), packed_linears(model):
            model(torch.ones(1, 8))
        assert not any("forward" in vars(m) for m in model.modules())

    def test_adapters_count(self, rng: torch.Generator) -> None:
        """Oracle: the same model without packing, to 1e-6; and without its adapters, which differs."""
        model = nn.Sequential(made(rng), nn.ReLU(), made(rng, 48, 5))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            lora = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["0", "2"], init_lora_weights=False)
            adapted = peft.get_peft_model(model, lora).eval()
        x = torch.randn(3, 64, generator=rng)
        expected = adapted(x)
        with adapted.disable_adapter():
            base = adapted(x)
        with packed_linears(adapted) as count:
            assert count in (0, 6)  # two layers, each with two matrices of its adapter
            assert (adapted(x) - expected).norm() <= 1e-6 * expected.norm()
            with adapted.disable_adapter():
                assert (adapted(x) - base).norm() <= 1e-6 * base.norm()
        assert (expected - base).norm() > 0.1 * base.norm()


class TestUnderAutocast:
    @pytest.mark.parametrize("weights_dtype", [torch.float32, torch.bfloat16])
    def test_bfloat16(self, rng: torch.Generator, weights_dtype: torch.dtype) -> None:
        """Oracle: torch's own product under the same autocast, bit by bit but for a unit in the last place."""
        layer, x = made(rng).to(weights_dtype), torch.randn(7, 64, generator=rng)
        with torch.autocast("cpu", torch.bfloat16):
            expected = layer(x)
            with packed_linears(layer):
                found = layer(x)
        assert found.dtype == expected.dtype == torch.bfloat16
        assert ((found - expected).abs() <= 2.0**-7 * expected.abs() + 2.0**-6).all()
        assert (found != expected).float().mean() <= 0.01

    @pytest.mark.parametrize("weights_dtype", [torch.float32, torch.bfloat16])
    def test_float16(self, rng: torch.Generator, weights_dtype: torch.dtype) -> None:
        """Oracle: torch's own product under the same autocast, bit by bit: nothing is packed in float16."""
        layer, x = made(rng).to(weights_dtype), torch.randn(7, 64, generator=rng)
        with torch.autocast("cpu", torch.float16):
            expected = layer(x)
            with packed_linears(layer) as count:
                assert count == 0
                assert torch.equal(layer(x), expected)

    def test_float64_stays(self, rng: torch.Generator) -> None:
        """Oracle: torch's own; autocast leaves float64 alone."""
        layer, x = made(rng).double(), torch.randn(7, 64, generator=rng).double()
        with torch.autocast("cpu", torch.bfloat16), packed_linears(layer) as count:
            assert count == 0
            assert torch.equal(layer(x), linear(x, layer.weight, layer.bias))

    @pytest.mark.parametrize("outside", [True, False])
    def test_autocast_that_changes_within(self, rng: torch.Generator, outside: bool) -> None:
        """Oracle: torch's own; a part of the model that switches autocast off, and one that brings its own."""
        layer, x = made(rng), torch.randn(7, 64, generator=rng)
        outer, inner = (torch.autocast("cpu", torch.bfloat16, enabled=on) for on in (outside, not outside))
        with outer, packed_linears(layer), inner:
            found = layer(x)
        with inner:
            expected = layer(x)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


class TestWherePackingIsNot:
    @pytest.fixture(autouse=True)
    def check_again(self) -> Iterator[None]:
        torch_packed_linear.packing_works.cache_clear()
        yield
        torch_packed_linear.packing_works.cache_clear()

    def assert_untouched(self, rng: torch.Generator, dtype: torch.dtype = torch.float32) -> None:
        layer, x = made(rng).to(dtype), torch.randn(3, 64, generator=rng).to(dtype)
        expected = layer(x)
        with packed_linears(layer) as count:
            assert count == 0
            assert "forward" not in vars(layer)
            assert torch.equal(layer(x), expected)

    def test_no_onednn(self, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        """Oracle: torch's own product, bit by bit, where torch was built without oneDNN."""
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        self.assert_untouched(rng)

    def test_operators_that_fail(self, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        """Oracle: the same, where the operators are there and refuse."""

        def refuse(*_: object) -> Tensor:
            raise RuntimeError("not on this machine")

        monkeypatch.setattr(torch_packed_linear, "product", refuse)
        self.assert_untouched(rng)

    def test_products_that_are_not_exact(self, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        """Oracle: the same, where a product is right to 3e-6 only, as with matrix units of 19 bits."""
        product = torch_packed_linear.product
        monkeypatch.setattr(torch_packed_linear, "product", lambda *args: product(*args) * (1 + 3e-6))
        self.assert_untouched(rng)

    def test_bfloat16_that_fails(self, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        """Oracle: the same in bfloat16; a processor may pack float32 and not that. Then float32 is packed."""
        needs_packing()
        torch_packed_linear.packing_works.cache_clear()
        pack = torch_packed_linear.pack

        def only_float32(weight: Tensor) -> Tensor:
            if weight.dtype == torch.bfloat16:
                raise RuntimeError("bf16 path needs the cpu support avx512bw, avx512vl and avx512dq")
            return pack(weight)

        monkeypatch.setattr(torch_packed_linear, "pack", only_float32)
        self.assert_untouched(rng, torch.bfloat16)
        with packed_linears(made(rng)) as count:
            assert count == 1

    def test_a_wider_default_dtype(self, rng: torch.Generator) -> None:
        """Oracle: as many layers are packed as under torch's own default."""
        with packed_linears(made(rng)) as usual:
            pass
        torch_packed_linear.packing_works.cache_clear()
        layer = made(rng)
        try:
            torch.set_default_dtype(torch.float64)
            with packed_linears(layer) as count:
                assert count == usual
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.skipif(not can_pack(nn.Linear(4, 4)), reason="this CPU, or this torch, packs no weights")
def test_packed_layers(bias: bool) -> None:
    """Oracle: the formulas in float64, to float32's rounding."""
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Linear(24, n, bias=bias) for n in (16, 8, 8)]
    for layer in layers:
        for weight in layer.parameters():
            weight.normal_(generator=generator)
    packed, one = Packed(layers), Packed(layers[:1])
    x, z = torch.randn(5, 24, generator=generator), torch.randn(5, 16, generator=generator)
    exact = [nn.functional.linear(x.double(), a.weight.double(), a.bias.double() if bias else None) for a in layers]

    def relative(found: Tensor, expected: Tensor) -> float:
        return float((found.double() - expected).norm() / expected.norm())

    assert relative(packed(x), torch.cat(exact, -1)) < 1e-6
    assert relative(one(x, silu=True), exact[0] * exact[0].sigmoid()) < 1e-6
    assert relative(one(x, multiply=z), exact[0] * z) < 1e-6
    assert relative(one(x, add=z), exact[0] + z) < 1e-6


def test_the_operators_have_the_arguments_that_are_passed() -> None:
    """Oracle: torch's own schemas; without oneDNN there are none, and nothing is packed."""
    needs_packing()
    ops = torch.ops.mkldnn
    names = [
        [a.name for a in operator._schema.arguments]
        for operator in (
            ops._reorder_linear_weight.default,
            ops._linear_pointwise.default,
            ops._linear_pointwise.binary,
        )
    ]
    assert names[0] == ["self", "batch_size"]
    assert names[1] == ["X", "W", "B", "attr", "scalars", "algorithm"]
    assert names[2] == ["X", "other", "W", "B", "attr"]
