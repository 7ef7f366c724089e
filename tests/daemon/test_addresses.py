"""Address rules kept as the lists have them: what is put there when, and what is said where it cannot be."""

import asyncio
import io
from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgeblock.addresses import EMPTY, Addresses, Span, What
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.formats import read_domains
from edgeblock.blocklist.settings import ListSettings
from edgeblock.config import Config
from edgeblock.daemon import addresses as module
from edgeblock.daemon.addresses import AddressRules
from edgeblock.daemon.tasks import Tasks
from edgeblock.errors import SystemProblem
from tests.daemon.parts import Log


def listed(*numbers: int, what: What = What.DROP, owner: str = "list") -> Addresses:
    return Addresses({4: tuple(Span(number, number, what, owner) for number in numbers), 6: ()}, EMPTY.endpoints)


class Kernel:
    """What stands in place of nf_tables: the entries, and what was done, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table: Addresses | None = None
        self.done: list[str] = []
        self.fault: Exception | None = None
        self.counts: dict[module.addresses.Spot, int] = {}
        self.generation = 0
        for name in ("present", "apply", "change", "remove", "is_there", "counted", "standing"):
            monkeypatch.setattr(module.addresses, name, getattr(self, name))
        monkeypatch.setattr(module.standing, "current", lambda: self.generation)
        monkeypatch.setattr(module, "cut", lambda blocked, stage: self.done.append("cut") if blocked else None)

    def present(self) -> bool:
        return self.table is not None

    def apply(self, config: Config, wanted: Addresses, nat64: tuple[str, ...]) -> bool:
        self._may()
        self.done.append("apply")
        self.table, self.generation = wanted, self.generation + 1
        return True

    def change(self, old: Addresses, new: Addresses, nat64: tuple[str, ...]) -> None:
        self._may()
        assert self.table is not None and self.table.ranges == old.ranges
        self.done.append("change")
        self.table, self.generation = new, self.generation + 1

    def remove(self) -> None:
        self.table = None

    def is_there(self, wanted: Addresses, nat64: tuple[str, ...]) -> bool:
        return self.table is not None and self.table.ranges == wanted.ranges

    def counted(self) -> list[tuple[module.addresses.Spot, int]]:
        return list(self.counts.items())

    def standing(self, *_: object) -> "Kernel":
        return self

    def take(self) -> list[str]:
        return []

    def lost(self) -> list[str]:
        return [] if self.present() else ["table is gone"]

    def _may(self) -> None:
        if self.fault:
            raise self.fault


class Lists:
    """Rules whose addresses the test says."""

    fd = 1

    def __init__(self, says: Addresses | Exception) -> None:
        self.says = says


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    def read(rules: AddressRules, loaded: Lists) -> Addresses:
        if isinstance(loaded.says, Exception):
            raise loaded.says
        rules._wanted = loaded.says
        return module.with_new(rules._there, rules._wanted)

    monkeypatch.setattr(AddressRules, "_read", read)
    return Kernel(monkeypatch)


def made(**ruleset: bool) -> tuple[AddressRules, Log]:
    log = Log()
    config = replace(Config(), ruleset=replace(Config().ruleset, **ruleset))

    async def call(work, *arguments):
        return work(*arguments)

    return AddressRules(config, log, Tasks(lambda: None), call, lambda: None), log


def test_what_is_new_comes_before_the_workers_have_it_and_what_goes_goes_after(kernel: Kernel):
    rules, _ = made()

    async def live():
        await rules.stage(Lists(listed(1, 2)))
        assert kernel.done == []                # nothing before the other rules are there
        await rules.install()
        assert kernel.done == ["apply", "cut"] and kernel.table == listed(1, 2)
        await rules.stage(Lists(listed(2, 3)))
        assert kernel.table.ranges == listed(1, 2, 3).ranges
        await rules.commit()
        assert kernel.table == listed(2, 3)
        done = len(kernel.done)
        await rules.stage(Lists(listed(2, 3)))
        await rules.commit()
        assert len(kernel.done) == done

    asyncio.run(live())


def test_what_is_taken_away_between_the_two_is_put_back_as_it_was(kernel: Kernel):
    rules, log = made()

    async def live():
        await rules.stage(Lists(listed(1)))
        await rules.install()
        await rules.stage(Lists(listed(2)))
        kernel.table = None
        assert await rules.look() == "" and rules.restored == 1
        assert kernel.table.ranges == listed(1, 2).ranges       # 1 is what some worker still blocks
        kernel.table, kernel.generation = listed(1), kernel.generation + 1
        assert await rules.look() == "" and rules.restored == 2 and kernel.table.ranges == listed(1, 2).ranges

    asyncio.run(live())
    assert [event for event, _ in log.said].count("address rules have been taken away") == 2


def test_without_nft_the_box_says_so_until_it_can(kernel: Kernel):
    rules, _ = made()

    async def live():
        kernel.fault = SystemProblem("nft: not installed; install the package nftables")
        await rules.install()
        assert await rules.look() == ""                         # no list has an address
        await rules.stage(Lists(listed(1)))
        assert "watched ports only: nft: not installed" in await rules.look()
        assert rules.status()["in_kernel"] == 0 and rules.status()["ranges"] == 1
        kernel.fault = None
        assert await rules.look() == "" and kernel.table == listed(1)

    asyncio.run(live())


def test_more_than_the_kernel_is_given_is_said_until_it_is_less_and_what_was_there_stays(kernel: Kernel):
    rules, _ = made()

    async def live():
        await rules.stage(Lists(listed(1)))
        await rules.install()
        await rules.stage(Lists(SystemProblem("too many")))
        await rules.commit()
        for _ in range(3):
            assert "too many" in await rules.look()
        assert kernel.table == listed(1)
        await rules.stage(Lists(listed(1, 2)))
        assert await rules.look() == "" and kernel.table == listed(1, 2)

    asyncio.run(live())


def test_a_start_with_too_many_leaves_what_another_daemon_has_left(kernel: Kernel):
    rules, _ = made()
    kernel.table = listed(9)

    async def live():
        await rules.stage(Lists(SystemProblem("too many")))
        await rules.install()
        assert "too many" in await rules.look()

    asyncio.run(live())
    assert kernel.table == listed(9)


@pytest.mark.parametrize("off", ["addresses", "install"])
def test_where_it_is_off_nothing_is_put_there_and_it_is_said(kernel: Kernel, monkeypatch, off: str):
    rules, log = made(**{off: False})
    kernel.table, entries = listed(9), b""
    monkeypatch.setattr(module, "map_snapshot", lambda *_: SimpleNamespace(parts=SimpleNamespace(addresses=entries)))

    async def live():
        nonlocal entries
        loaded = SimpleNamespace(fd=1, key=b"")
        await rules.stage(loaded)
        await rules.install()
        assert await rules.look() == "" and rules.status()["off"] == ""
        entries = bytes(2 * module.ADDRESS.size)
        await rules.stage(loaded)
        await rules.stage(loaded)
        assert rules.status()["off"] == f"2 address entries hold on the watched ports only: [ruleset] {off} = false"
        assert (rules.status()["ranges"], rules.status()["in_kernel"]) == (2, 0)        # as an alert sees it
        entries = b""
        await rules.stage(loaded)

    asyncio.run(live())
    assert kernel.table is None and kernel.done == [] and rules.status()["off"] == ""
    assert [event for event, _ in log.said] == ["address rules are off"]


def test_counts_are_of_the_lists_whose_entries_are_there_and_begin_with_the_daemon(kernel: Kernel):
    rules, _ = made()

    async def live():
        await rules.stage(Lists(listed(1, owner="a")))
        await rules.install()
        kernel.counts = {(4, False, 1): 5}
        assert rules._count() == {"a": 5} and rules._count() == {}
        await rules.stage(Lists(listed(2, owner="b")))          # not committed yet: both are there
        kernel.counts = {(4, False, 1): 7, (4, False, 2): 1, (4, False, 77): 3}
        assert rules._count() == {"a": 2, "b": 1}

    asyncio.run(live())


def test_the_canarys_endpoints_are_there_with_others_and_count_for_nobody(kernel: Kernel):
    rules, log = made()
    own = module.always_listed(Config())
    assert [(one.port, one.owner) for family in (4, 6) for one in own.endpoints[family]] == [(9, "/canary")] * 2
    assert module.always_listed(replace(Config(), canary=replace(Config().canary, enabled=False, ipv6=""))) == EMPTY
    four = module.always_listed(replace(Config(), canary=replace(Config().canary, ipv6="")))
    assert four.endpoints[4] and not four.endpoints[6]

    async def live():
        await rules.stage(Lists(module.with_new(listed(1), own)))
        await rules.install()
        assert rules.are_probed and kernel.table.ports == own.ports
        status = rules.status()
        assert (status["ranges"], status["in_kernel"]) == (1, 1)
        kernel.counts = dict.fromkeys(module.addresses.spots(kernel.table), 7)
        assert rules._count() == {"list": 7}
        await rules.stage(Lists(EMPTY))
        await rules.commit()
        assert not rules.are_probed

    asyncio.run(live())


def test_the_canary_has_no_endpoint_where_no_list_has_an_address(monkeypatch: pytest.MonkeyPatch):
    rules, _ = made()
    for total, says in ((0, EMPTY), (1, listed(1))):
        monkeypatch.setattr(rules._lists, "read", lambda parts, most, at, says=says: says)
        parts = SimpleNamespace(lists=[], windows={})
        monkeypatch.setattr(module, "map_snapshot", lambda fd, key, parts=parts: SimpleNamespace(parts=parts))
        rules._read(SimpleNamespace(fd=1, key=b""))
        assert (rules._wanted == EMPTY) == (total == 0)
        assert rules.status()["ranges"] == total



WINDOWED = "192.0.2.1\n192.0.2.9 from=2030-03-17T18:00:00Z\n"


def compiled(text: str) -> SimpleNamespace:
    compiler = Compiler(bytes(16))
    compiler.add_list("a", ListSettings())
    for entry in read_domains(io.BytesIO(text.encode())):
        compiler.add(0, entry)
    return SimpleNamespace(fd=1, key=compiler.finish())


def running(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> tuple[Kernel, AddressRules]:
    """On a box whose clock the test sets; what would be done in the thread is done at once."""
    kernel = Kernel(monkeypatch)
    monkeypatch.setattr(module, "map_snapshot", lambda fd, key: SimpleNamespace(parts=key))
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    return kernel, made()[0]


async def begin(rules: AddressRules) -> None:
    """With an address that is always listed, and one from some minutes later on."""
    await rules.stage(compiled(WINDOWED))
    await rules.install()
    await rules.commit()


def there(kernel: Kernel) -> list[int]:
    return [span.first & 0xFF for span in kernel.table.spans[4]]


def test_what_has_a_window_is_in_the_kernel_while_it_holds(monkeypatch: pytest.MonkeyPatch):
    now = [1_900_000_000.0]
    kernel, rules = running(monkeypatch, now)

    async def live() -> None:
        await begin(rules)
        for moment, those in ((0, [1]), (1200, [1, 9]), (0, [1]), (1200, [1, 9])):     # there, and set back
            now[0] = 1_900_000_000.0 + moment
            await rules._turn(now[0])
            assert there(kernel) == those and rules.are_kept

    asyncio.run(live())


def test_new_lists_are_not_put_back_by_a_moment_of_the_old_ones(monkeypatch: pytest.MonkeyPatch):
    now = [1_900_000_000.0]
    kernel, rules = running(monkeypatch, now)

    async def live() -> None:
        await begin(rules)
        held = asyncio.Event()
        call, rules._call = rules._call, None

        async def slow(work, *arguments):           # the thread is busy
            await held.wait()
            return await call(work, *arguments)

        rules._call = slow
        staging = asyncio.create_task(rules.stage(compiled("192.0.2.2\n")))
        keeping = asyncio.create_task(rules.keep_time())
        now[0] += 1200
        await asyncio.sleep(3 * module.LOOKING)
        held.set()
        await staging
        await asyncio.sleep(2 * module.LOOKING)
        await rules.commit()
        keeping.cancel()
        assert there(kernel) == [2] and rules.are_kept

    asyncio.run(live())


def test_a_moment_does_not_hide_that_new_lists_have_too_many(monkeypatch: pytest.MonkeyPatch):
    now = [1_900_000_000.0]
    _, rules = running(monkeypatch, now)
    monkeypatch.setattr(module, "COUNT_MAX", 3)

    async def live() -> None:
        await begin(rules)
        await rules.stage(compiled("192.0.2.2\n192.0.2.4\n192.0.2.6\n192.0.2.8\n"))
        now[0] += 1200
        await rules._turn(now[0])
        assert "4 ranges of addresses are listed" in rules.problem and rules.are_kept is False

    asyncio.run(live())
