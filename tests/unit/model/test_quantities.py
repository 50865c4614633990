import pytest

from shared.model.quantities import parse_cpus, parse_memory


@pytest.mark.parametrize(
    ("text", "nano_cpus"),
    [
        (".5", 500_000_000),
        ("1", 10**9),
        ("2.25", 2_250_000_000),
        ("0.000000001", 1),
        ("3.", 3 * 10**9),
    ],
)
def test_cpus(text: str, nano_cpus: int) -> None:
    assert parse_cpus(text) == nano_cpus


@pytest.mark.parametrize("text", ["", ".", "-1", "1e3", "half", "1,5", "1 ", "٣", "9" * 500])
def test_no_cpus(text: str) -> None:
    with pytest.raises(ValueError, match="number of CPUs"):
        parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("512m", 512 << 20),
        ("1.5g", 3 << 29),
        ("64MiB", 64 << 20),
        ("64MB", 64 << 20),
        ("10 kb", 10 << 10),
        (".5K", 512),
        ("100b", 100),
        ("1t", 1 << 40),
    ],
)
def test_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text", ["", "m", "-1m", "1x", "1mm", "1 m m", "lots", "9000000p", "9" * 500]
)
def test_no_memory(text: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        parse_memory(text)
