"""What no order waits for gets a small part of a short turn, a third of a long one, and always one item."""

from __future__ import annotations

from core.web.share import LEAST_S, MOST_S, SHARE, Share


class Work:
    """Items that take so long each, done in turns; the rest of a turn takes some time too."""

    def __init__(self, item_s: float) -> None:
        self.now_s, self._item_s = 0.0, item_s
        self._share = Share(lambda: self.now_s)

    def turn(self, waiting: int, rest_s: float) -> int:
        """Return how many items were done in one turn, when so many waited; ``rest_s``: what else it took."""
        self.now_s += rest_s
        self._share.begin()
        done = 0
        while done < waiting:
            self.now_s += self._item_s
            done += 1
            if self._share.is_over():
                if done < waiting:
                    self._share.leave_off()
                break
        return done


def test_a_burst_is_done_in_small_parts() -> None:
    """Stops: a turn of some milliseconds, behind which every honest order waits twice."""
    work, parts = Work(LEAST_S / 4), list[int]()
    while sum(parts) < 100:
        parts.append(work.turn(100 - sum(parts), rest_s=LEAST_S))
    assert max(parts) <= 5


def test_an_item_that_takes_longer_than_the_part_is_done_all_the_same() -> None:
    """Stops: work that is put off for ever because it is never short enough."""
    work = Work(LEAST_S * 10)
    assert [work.turn(3 - n, rest_s=0.0) for n in range(3)] == [1, 1, 1]


def test_where_turns_are_long_the_part_grows_with_them() -> None:
    """Stops: new buyers of a flash crowd who wait in the kernel's queue for seconds, eight a turn."""
    work = Work(LEAST_S / 4)
    work.turn(10_000, rest_s=0.0)
    done = [work.turn(10_000, rest_s=0.02) for _ in range(5)]
    assert min(done) >= 0.9 * 0.02 * SHARE / (LEAST_S / 4)
    assert max(done) <= 1.1 * 0.02 * SHARE / (LEAST_S / 4)


def test_a_long_rest_in_which_nothing_was_waiting_gives_no_more() -> None:
    """Stops: the first burst after a quiet second done in one long turn."""
    for waiting in range(1, 6):  # the fourth is the one that uses the part up
        work = Work(LEAST_S / 4)
        work.turn(waiting, rest_s=0.0)
        if waiting <= 4:
            assert work.turn(1_000, rest_s=1.0) <= 5
        else:
            assert work.turn(1_000, rest_s=1.0) > 5, "there was more to do: so long a turn was that"


def test_no_turn_is_so_long_that_its_share_holds_up_everybody() -> None:
    """Stops: a worker that was stopped for a minute and then does nothing but accept for fifteen seconds."""
    work = Work(LEAST_S / 4)
    work.turn(10_000, rest_s=0.0)
    assert work.turn(1_000_000, rest_s=60.0) <= MOST_S / (LEAST_S / 4) + 1


def test_who_has_to_wait_behind_others_is_given_no_more_for_it() -> None:
    """Stops: cuts that waited ten milliseconds behind orders and then take five in one turn."""
    clock = [0.0]
    share = Share(lambda: clock[0])
    share.begin()
    share.leave_off()
    share.rest()
    clock[0] += 1.0
    share.begin()
    clock[0] += LEAST_S * 1.01
    assert share.is_over()
