from __future__ import annotations

import numpy as np
import pytest

from grao.rewards import FunctionReport, RewardReport, Statistics


def test_statistics_by_hand():
    """Oracle: 1, 2, 3, 6: mean 3, population variance (4 + 1 + 0 + 9)/4 = 3.5; quartiles 1.75, 2.5, 3.75."""
    found = Statistics.of([6.0, None, 1.0, 3.0, 2.0])
    assert (found.count, found.mean, found.minimum, found.maximum) == (4, 3.0, 1.0, 6.0)
    assert found.std == pytest.approx(3.5**0.5, rel=1e-15)
    assert (found.q25, found.q50, found.q75) == (1.75, 2.5, 3.75)


def test_quartiles_equal_numpys():
    """Oracle: numpy.quantile on 1 to 30 random values."""
    rng = np.random.default_rng(0)
    for n in range(1, 31):
        x = rng.normal(size=n)
        found = Statistics.of(list(x))
        np.testing.assert_allclose(
            [found.q25, found.q50, found.q75], np.quantile(x, [0.25, 0.5, 0.75]), rtol=1e-12, atol=1e-12
        )
        np.testing.assert_allclose([found.mean, found.std], [x.mean(), x.std()], rtol=1e-12, atol=1e-12)


def test_metrics_have_trls_names_and_no_mean_of_nothing():
    """Oracle: the dictionary written out by hand."""
    report = RewardReport(
        (
            FunctionReport("a", samples=(1.0, 3.0, None), references=(4.0, None), errors=1, seconds=0.5),
            FunctionReport("b", samples=(None,)),
        )
    )
    assert report.metrics() == {
        "rewards/a/mean": 2.0,
        "rewards/a/std": 1.0,
        "rewards/a/q25": 1.5,
        "rewards/a/q50": 2.0,
        "rewards/a/q75": 2.5,
        "rewards/a/reference_mean": 4.0,
        "rewards/a/unscored": 2.0,
        "rewards/a/errors": 1.0,
        "rewards/a/seconds": 0.5,
        "rewards/b/unscored": 1.0,
        "rewards/b/errors": 0.0,
        "rewards/b/seconds": 0.0,
    }


def test_merging_two_processes_equals_one_report_of_all():
    """Oracle: identity: the merged report's metrics are those of the concatenated values."""
    one = RewardReport((FunctionReport("a", (1.0, None), (2.0,), errors=1, seconds=3.0),))
    two = RewardReport((FunctionReport("a", (5.0,), (None,), errors=1, seconds=2.0),))
    whole = RewardReport((FunctionReport("a", (1.0, None, 5.0), (2.0, None), errors=2, seconds=3.0),))
    assert RewardReport.merge([one, two]) == whole
    with pytest.raises(ValueError, match="same reward functions"):
        RewardReport.merge([one, RewardReport(())])
