"""The price of a backoff: a pure function of two numbers."""

from benches.python.calls import EXAMPLE, PREVIOUS, Empty
from pytest_benchmark.fixture import BenchmarkFixture


def test_backoff_next(benchmark: BenchmarkFixture) -> None:
    """One step of an exponential backoff."""
    assert benchmark(EXAMPLE.next, PREVIOUS) == 44


def test_empty_method(benchmark: BenchmarkFixture) -> None:
    """A method that does nothing with its argument, for comparison."""
    assert benchmark(Empty().next, PREVIOUS) is None
