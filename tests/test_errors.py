import pytest

from athwe_core.errors import (
    MAX_VALUE,
    AthweError,
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteLossError,
    require,
)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("top_k", "must be in 1..8", 9, "Lower it"), "top_k must be in 1..8, got 9. Lower it"),
        (("top_k", "must be in 1..8", 9), "top_k must be in 1..8, got 9"),
        (("name", "must be given", None), "name must be given, got None"),
        (("name", "must not be empty", ""), "name must not be empty, got ''"),
    ],
)
def test_the_text_is_name_rule_value_and_remedy(parts: tuple[str, ...], text: str) -> None:
    assert str(AthweError(*parts)) == text


def test_a_value_that_is_not_given_is_not_shown() -> None:
    error = AthweError("the file", "must exist", remedy="Write it")
    assert str(error) == "the file must exist. Write it"
    assert error.value is None


def test_the_parts_stay_available() -> None:
    error = AthweError("top_k", "must be in 1..8", 9, "Lower it")
    assert (error.name, error.rule, error.value, error.remedy) == ("top_k", "must be in 1..8", 9, "Lower it")


def test_the_text_is_one_line_whatever_the_parts() -> None:
    assert (
        str(AthweError("a\nfile", "must\tbe  short", "x\ny", "Cut\n it")) == r"a file must be short, got 'x\ny'. Cut it"
    )


def test_a_long_value_is_cut() -> None:
    text = str(AthweError("name", "must be short", "x" * 10_000))
    assert text == "name must be short, got '" + "x" * (MAX_VALUE - 1) + "..."


@pytest.mark.parametrize(
    ("kind", "code"), [(AthweError, 1), (NonFiniteLossError, 1), (ConfigError, 2), (DataError, 3), (CheckpointError, 3)]
)
def test_each_kind_has_its_exit_code(kind: type[AthweError], code: int) -> None:
    assert kind("name", "must hold").exit_code == code


def test_require_raises_where_the_condition_fails() -> None:
    require(True, "top_k", "must be in 1..8", 8)
    with pytest.raises(ConfigError, match=r"^top_k must be in 1\.\.8, got 9\. Lower it$"):
        require(False, "top_k", "must be in 1..8", 9, "Lower it")
