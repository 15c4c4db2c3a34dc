"""Cores are parted among the workers that compute, and only among those."""

from mullama.runtime.worker.cores import CoreAllocator


class Told:
    """A worker that records its last share."""

    part: tuple[int, int] | None = None

    def share_cores(self, rank: int, of: int) -> None:
        self.part = (rank, of)


def test_a_worker_that_computes_alone_has_all_cores() -> None:
    cores, a = CoreAllocator(), Told()
    cores.begin(a)
    assert a.part == (0, 1)


def test_two_workers_that_compute_share_the_cores() -> None:
    cores, a, b = CoreAllocator(), Told(), Told()
    cores.begin(a)
    cores.begin(b)
    assert (a.part, b.part) == ((0, 2), (1, 2))


def test_the_remaining_worker_has_all_cores_again() -> None:
    cores, a, b, c = CoreAllocator(), Told(), Told(), Told()
    for worker in (a, b, c):
        cores.begin(worker)
    cores.end(a)
    assert (b.part, c.part) == ((0, 2), (1, 2))
    cores.end(b)
    assert c.part == (0, 1)


def test_one_that_never_began_may_end() -> None:
    cores, a, b = CoreAllocator(), Told(), Told()
    cores.begin(a)
    cores.end(b)
    assert a.part == (0, 1)
    assert b.part is None


def test_beginning_twice_counts_once() -> None:
    cores, a = CoreAllocator(), Told()
    cores.begin(a)
    cores.begin(a)
    assert a.part == (0, 1)
