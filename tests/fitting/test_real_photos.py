"""The default fit on real photos; figures that a change of the method must not lower."""

from __future__ import annotations

from pathlib import Path

import pytest

import reconpatch
from reconpatch.evaluation.datasets import labelled_photos
from reconpatch.evaluation.evaluate import Evaluation, evaluate
from reconpatch.method.calibration import beta_binomial_interval
from reconpatch.model.model import Model

pytestmark = pytest.mark.real


def fitted_and_evaluated(category: Path) -> tuple[Model, Evaluation]:
    # The default at 224: its own size, 320, takes twice the time and shows no more here.
    model = reconpatch.fit(category / "train" / "good", size=224, thumbnails=False)
    return model, evaluate(model, labelled_photos(category / "test")[0])


def most_false_alarms(model: Model, figures: Evaluation) -> int:
    """As many as 99.9 % of all fits and test sets stay within, were all good photos alike."""
    threshold = model.calibration.image_threshold
    above = threshold.photos + 1 - threshold.rank
    return beta_binomial_interval(figures.good, above, threshold.rank, coverage=0.999)[1]


def test_bottle(real_data: Path) -> None:
    model, figures = fitted_and_evaluated(real_data / "mvtec_ad" / "bottle")
    assert (figures.good, figures.defective, figures.masks) == (20, 63, 63)
    assert (figures.metrics["image_auroc"] or 0) >= 0.99
    assert (figures.metrics["pixel_auroc"] or 0) >= 0.97
    assert figures.false_alarms <= most_false_alarms(model, figures)


def test_cookie(real_data: Path) -> None:
    model, figures = fitted_and_evaluated(real_data / "aws_cookie" / "cookie")
    assert len(model.photos) == 31
    assert (figures.good, figures.defective) == (14, 32)
    assert (figures.metrics["image_auroc"] or 0) >= 0.95
    # 31 good photos cannot promise 1 %: the rate stated is 1 / 32.
    assert model.calibration.image_threshold.stated_rate == pytest.approx(1 / 32)
