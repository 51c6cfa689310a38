from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch

import rince
from rince.core.checks import (
    RinceError,
    RinceWarning,
    check_temperature,
    import_extra,
    require,
    usable_temperature,
    warn,
)


def test_require_raises_the_message_and_only_if_the_condition_fails() -> None:
    require(True, "never said")
    with pytest.raises(ValueError, match=r"^said once$"):
        require(False, "said once")


def test_an_own_error_can_be_told_from_pythons() -> None:
    assert not issubclass(RinceError, (ValueError, OSError))
    assert issubclass(RinceWarning, UserWarning)


def test_a_warning_from_outside_points_at_the_line_that_called() -> None:
    with pytest.warns(RinceWarning, match=r"^look here$") as caught:
        warn("look here")
    assert [w.filename for w in caught] == [__file__]


@pytest.mark.parametrize("through_module", [False, True])
def test_a_warning_from_inside_points_at_the_users_line(through_module: bool) -> None:
    z = torch.eye(2) * math.sqrt(2)  # not of unit length
    ranks = torch.tensor([[1, 0], [0, 1]])
    criterion = rince.RankedInfoNCE(0.1) if through_module else rince.losses.supcon_out
    with pytest.warns(RinceWarning, match="unit length") as caught:
        criterion(z, z, ranks)
    assert [w.filename for w in caught] == [__file__]


def test_a_warning_can_be_made_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RinceWarning)
        with pytest.raises(RinceWarning, match="stop"):
            warn("stop")


def test_an_extra_that_is_there_is_imported() -> None:
    assert import_extra("math", "train") is math


def test_an_extra_that_is_missing_is_named_with_its_pip_command() -> None:
    with pytest.raises(ImportError, match=r"needs no_such_thing, .* pip install 'rince\[video\]'"):
        import_extra("no_such_thing.inside", "video")


def test_what_a_package_lacks_is_named_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_thing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="needs half_installed, and no_such_thing, which is not"):
        import_extra("half_installed", "video")


def test_every_public_name_is_there_and_no_other() -> None:
    for name in rince.__all__:
        assert getattr(rince, name) is not None
    assert dir(rince) == sorted(rince.__all__)
    with pytest.raises(AttributeError, match="ranked_infonce"):
        rince.ranked_infonce  # noqa: B018


@pytest.mark.parametrize("number", [1e-30, 0.1, 1, 1e30])
def test_temperatures_that_float32_can_divide_by(number: float) -> None:
    assert usable_temperature(number)
    check_temperature(number)


@pytest.mark.parametrize("number", [0, -0.1, 9e-31, 1.1e30, math.inf, math.nan])
def test_temperatures_that_it_cannot(number: float) -> None:
    assert not usable_temperature(number)
    with pytest.raises(ValueError, match="^scale must be a positive number, from 1e-30 to 1e30"):
        check_temperature(number, "scale")


def test_temperatures_in_float16_have_its_limits() -> None:
    for number, usable in ((0.0, False), (6e-8, True), (65504.0, True), (math.inf, False)):
        assert bool(usable_temperature(torch.tensor(number, dtype=torch.float16))) == usable
