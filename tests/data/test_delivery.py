"""Batches that are made ahead of time: the same, in the same order, with the same failures."""

import threading
from collections.abc import Generator

import pytest
import torch

from lsc.data import delivery
from lsc.data.base import Batch
from lsc.data.loading import LoadError

CPU = torch.device("cpu")


def batch(number: int) -> Batch:
    return Batch(torch.full((1, 1, 2, 2), float(number)), torch.tensor([number]), torch.tensor([number]))


def test_batches_made_ahead_come_in_their_order_from_another_thread() -> None:
    made: list[tuple[int, int]] = []

    def making() -> Generator[Batch, None, None]:
        for number in range(5):
            made.append((number, threading.get_ident()))
            yield batch(number)

    taken = []
    for one in delivery.made_ahead(making()):
        taken.append(int(one.labels))
    assert taken == [number for number, _ in made] == list(range(5))
    assert threading.get_ident() not in {thread for _, thread in made}


def test_what_fails_ahead_fails_where_it_is_asked_for() -> None:
    def failing() -> Generator[Batch, None, None]:
        yield batch(0)
        raise LoadError("the second one")

    batches = delivery.made_ahead(failing())
    assert int(next(batches).labels) == 0
    with pytest.raises(LoadError, match="the second one"):
        next(batches)


def test_a_loop_that_ends_early_leaves_no_thread() -> None:
    before = threading.active_count()
    batches = delivery.made_ahead(batch(number) for number in range(100))
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize(("cores", "threads", "idle"), [(2, 1, True), (1, 1, False), (4, 2, False), (2, 2, False)])
def test_a_core_is_idle_beside_one_thread_alone(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, idle: bool
) -> None:
    monkeypatch.setattr(delivery, "default_workers", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert delivery.has_idle_core() == idle
    for at_hand in (True, False):  # a loading process that is waited for could hold up the end of a run
        found = delivery.delivered([(0, ())], lambda key: batch(threading.get_ident()), CPU, at_hand)
        assert (int(next(found).labels) != threading.get_ident()) == (idle and at_hand)
