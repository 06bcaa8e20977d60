"""Turns: one thread at a time, first come, first served."""

from __future__ import annotations

import threading
import time

import pytest

from trivet.index.turns import Turns


class Stage:
    """Threads that take a turn one after another, while the test has the first."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.at_once = self.most = 0
        self.order: list[int] = []

    def work(self, number: int) -> None:
        with self.turns.turn():
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            time.sleep(0.001)
            self.order.append(number)
            self.at_once -= 1

    def queue_up(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self.work, args=(number,), daemon=True)
        before = len(self.turns._queue)
        thread.start()
        while len(self.turns._queue) == before:
            time.sleep(0.0001)
        return thread


def test_turns_are_taken_one_at_a_time_in_the_order_of_arrival() -> None:
    stage = Stage()
    with stage.turns.turn():
        threads = [stage.queue_up(number) for number in range(20)]
        assert stage.order == []
    for thread in threads:
        thread.join(10)
    assert stage.order == list(range(20))
    assert stage.most == 1


def test_many_threads_that_take_many_turns_never_meet() -> None:
    stage = Stage()

    def work() -> None:
        for _ in range(50):
            stage.work(0)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(stage.order) == 400
    assert stage.most == 1


def test_a_turn_that_ends_with_an_error_is_passed_on() -> None:
    stage, threads = Stage(), []

    def fail() -> None:
        with stage.turns.turn():
            threads.append(stage.queue_up(1))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    threads[0].join(10)
    assert stage.order == [1]


def test_whoever_gives_up_waiting_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a search in the main thread does that is interrupted."""
    stage = Stage()

    class Interrupted:
        def __init__(self) -> None:
            self.asked = 0

        def acquire(self) -> None:
            self.asked += 1
            if self.asked == 2:
                raise KeyboardInterrupt

        def release(self) -> None:
            raise AssertionError("It has had no turn yet.")

    with stage.turns.turn():
        monkeypatch.setattr("trivet.index.turns.threading.Lock", Interrupted)
        with pytest.raises(KeyboardInterrupt), stage.turns.turn():
            raise AssertionError("It never gets the turn.")
        monkeypatch.undo()
        thread = stage.queue_up(1)
    thread.join(10)
    assert stage.order == [1]
