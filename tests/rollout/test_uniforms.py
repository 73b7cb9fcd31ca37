from __future__ import annotations

import torch

from grao.rollout.uniforms import uniforms

MASK = 2**64 - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox 4×64-10 in plain integers, from the paper (Salmon et al. 2011, section 3.3)."""
    c, k = counter, key
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = ((high >> 64) ^ c[1] ^ k[0], high & MASK, (low >> 64) ^ c[3] ^ k[1], low & MASK)
        k = ((k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK)
    return c


def test_the_plain_philox_is_right() -> None:
    """Oracle: the known-answer vector that the Random123 library publishes for counter 0 and key 0."""
    assert philox((0, 0, 0, 0), (0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )


def test_uniforms_are_philox() -> None:
    """Oracle: Philox in plain integers, counters 1, 2, …; exact."""
    for seed in (0, 12345, 2**63 - 1):
        words = [word for block in (1, 2) for word in philox((block, 0, 0, 0), (seed, 0))]
        assert uniforms([seed], 8)[0].tolist() == [(word >> 11) / 2**53 for word in words]


def test_uniforms_are_pinned() -> None:
    """Oracle: literal numbers. Were they to change, no old run could be repeated."""
    assert [u.hex() for u in uniforms([0, 12345], 2).flatten().tolist()] == [
        "0x1.7a5d3204726c0p-7",
        "0x1.eeb1585ce5460p-3",
        "0x1.4af258141dad4p-1",
        "0x1.8c6ccd7516eacp-1",
    ]


def test_a_draw_does_not_depend_on_the_batch_or_the_length() -> None:
    """Oracle: identity; a row alone, and a shorter request, are slices of the whole, bit for bit."""
    whole = uniforms([5, 6, 7], 40)
    assert torch.equal(uniforms([6], 13), whole[1:2, :13])
    assert whole.dtype == torch.float64
    assert uniforms([], 3).shape == (0, 3)


def test_uniforms_fill_the_unit_interval() -> None:
    """Oracle: moments of U[0, 1) within four standard errors: mean 1/2, no correlation along or across seeds."""
    u = uniforms(range(100), 1000)
    n = u.numel()
    assert ((u >= 0) & (u < 1)).all()
    assert abs(u.mean().item() - 0.5) < 4 / (12 * n) ** 0.5
    z = (u - 0.5) * 12**0.5
    assert abs((z[:, 1:] * z[:, :-1]).mean().item()) < 4 / n**0.5
    assert abs((z[1:] * z[:-1]).mean().item()) < 4 / n**0.5
