"""The supervisor where something fails under it: what it goes on with, and what it does not keep."""

import asyncio
import os
import socket
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import uvloop

from edgeblock.config import Config
from edgeblock.daemon import supervisor
from edgeblock.daemon.process import start
from edgeblock.daemon.rules import Loaded
from edgeblock.daemon.supervisor import Child, Supervisor, greet
from edgeblock.errors import SystemProblem
from tests.daemon.scarce import descriptors_left


class Log:
    """Everything that was said, as (event, details)."""

    def __init__(self):
        self.said = []

    def error(self, event, **more):
        self.said.append((event, more))

    info = warning = error


@pytest.fixture
def made():
    """A supervisor that has not started."""
    log = Log()
    relayed = []
    journal = SimpleNamespace(log=log, lost=0, relay=lambda now, line: relayed.append(line))
    yield SimpleNamespace(supervisor=Supervisor(Config(), journal, {}), log=log, relayed=relayed, journal=journal)


@contextmanager
def linked():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def test_no_child_gets_the_socket_of_a_queue(made):
    """One that had it kept the queue when its worker could not go on: every packet waited, for nobody."""
    with linked() as (ours, theirs):
        socket.send_fds(theirs, [b'{"bound": 0, "marks_by_verdict": false}'], [0])
        made.supervisor.stopping = True
        made.supervisor._hear(Child(SimpleNamespace(pid=1), ours, slot=made.supervisor.slots[0]))
    file = made.supervisor.slots[0].file
    assert file >= 0 and not os.get_inheritable(file)
    os.close(file)


def test_a_worker_that_missed_an_order_is_not_left_with_the_old_rules(made, monkeypatch):
    killed = []
    monkeypatch.setattr(supervisor, "kill", killed.append)

    def no_memory(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(supervisor.socket, "send_fds", no_memory)
    made.supervisor._tell(Child("the worker", None), {"do": "rules"})
    assert killed == ["the worker"]


def test_a_worker_that_ended_as_it_was_told_to_is_not_killed_once_more(made):
    """uvloop raised ProcessLookupError, and nobody looked after workers any more."""
    async def tell():
        process = await start("this", stdout=asyncio.subprocess.DEVNULL)
        while process.returncode is None:
            await asyncio.sleep(0.01)
        with linked() as (ours, theirs):
            theirs.close()
            made.supervisor._tell(Child(process, ours), {"do": "stop"})

    uvloop.run(tell())


def test_a_part_that_fails_ends_the_daemon(made):
    """Else it would go on, and nobody would look after its workers."""
    class Fault(Exception):
        pass

    async def fail():
        raise Fault

    async def start_and_wait(_):
        made.supervisor._go_on(fail())
        await asyncio.sleep(60)

    made.supervisor._start = start_and_wait
    with pytest.raises(Fault):
        uvloop.run(made.supervisor.serve())


def test_what_no_start_is_possible_without_is_one_line(made):
    async def no_process(_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    made.supervisor._start = no_process
    with pytest.raises(SystemProblem, match="^the daemon cannot start: Resource temporarily unavailable; it needs "
                                            "some processes and a hundred open files"):
        uvloop.run(made.supervisor.serve())


def test_kernel_rules_that_could_not_be_removed_go_when_the_workers_have(made, monkeypatch):
    """There was no process to be had for it as long as the workers were there."""
    done = []

    def remove():
        done.append("removed")
        if len(done) == 1:
            raise SystemProblem("nft: cannot be started: Resource temporarily unavailable")

    async def call(work):
        work()

    monkeypatch.setattr(supervisor.ruleset, "remove", remove)
    made.supervisor._call = call

    async def stop():
        await made.supervisor._remove_rules()
        await made.supervisor._remove_rules_left()
        await made.supervisor._remove_rules()
        made.supervisor.rules_left = False
        await made.supervisor._remove_rules_left()

    asyncio.run(stop())
    assert len(done) == 3
    [(event, more)] = made.log.said
    assert event == "kernel rules not removed; once more without workers" and "nft: cannot be" in more["problem"]


def test_without_memory_for_new_rules_those_in_force_stay(made, monkeypatch):
    def no_memory(*_):
        raise OSError(28, "No space left on device")

    fd = os.dup(0)
    loaded = Loaded(fd, "digest", [], [], {}, [], "", False, "content", bytes(16), -1)
    before = made.supervisor.rules, made.supervisor.files, made.supervisor.serial
    monkeypatch.setattr(supervisor, "write_all", no_memory)
    with pytest.raises(OSError, match="No space left"):
        made.supervisor._take(loaded)
    assert before == (made.supervisor.rules, made.supervisor.files, made.supervisor.serial)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_notes_are_whole_whatever_was_written_before():
    fd = supervisor.memory_file(b"a longer text")
    supervisor.write_all(fd, b"notes")
    assert os.pread(fd, 100, 0) == b"notes"
    os.close(fd)


def test_spares_that_end_at_once_are_started_more_and_more_slowly(made):
    made.supervisor.loop = SimpleNamespace(time=lambda: 100.0)
    made.supervisor.ready = True
    for _ in range(12):
        made.supervisor._put_off_spares("ended with status 1")
    assert [more["again_in"] for _, more in made.log.said[:4]] == [0.1, 0.2, 0.4, 0.8]
    assert made.supervisor.spare_due == 100.0 + supervisor.BACK_OFF_MAX
    with linked() as (ours, theirs):
        theirs.send(b'{"rules": 1}')
        made.supervisor.stopping = True
        made.supervisor._hear(Child(SimpleNamespace(pid=1), ours))
    made.supervisor._put_off_spares("ended with status 1")
    assert made.log.said[-1][1]["again_in"] == 0.1      # one was ready meanwhile


@pytest.mark.parametrize("said, kept", [
    ('{"refused": "not enough memory"}', True),         # the next one goes on with the queue, and its packets wait
    ('{"refused": "receiving from queue 0: Bad file descriptor", "broken": true}', False),
])
def test_only_a_socket_that_is_broken_is_let_go(made, said, kept):
    async def follow():
        made.supervisor.loop = loop = asyncio.get_running_loop()
        stdout = asyncio.StreamReader()
        stdout.feed_eof()

        async def wait():
            return 2

        slot = made.supervisor.slots[0]
        slot.file = os.dup(0)
        with linked() as (ours, theirs):
            slot.child = child = Child(SimpleNamespace(pid=7, stdout=stdout, wait=wait), ours, slot=slot, bound=True)
            loop.add_reader(ours.fileno(), made.supervisor._hear, child)
            theirs.send(said.encode())
            theirs.close()
            await made.supervisor._follow(child)
        assert slot.child is None and (slot.file >= 0) is kept
        made.supervisor._let_go(slot)

    uvloop.run(follow())


def test_a_worker_whose_lines_end_with_an_error_is_seen_off_like_any_other(made):
    async def follow():
        stdout = asyncio.StreamReader()
        stdout.set_exception(ConnectionResetError(104, "Connection reset by peer"))
        made.supervisor.loop = asyncio.get_running_loop()
        made.supervisor.stopping = True

        async def wait():
            return -9

        with linked() as (ours, theirs):
            theirs.close()
            child = Child(SimpleNamespace(pid=7, stdout=stdout, wait=wait), ours)
            made.supervisor.children.add(child)
            await made.supervisor._follow(child)
        assert not made.supervisor.children

    asyncio.run(follow())


def test_a_line_that_is_too_long_costs_itself_only(made):
    async def follow():
        stdout = asyncio.StreamReader(limit=100)
        stdout.feed_data(b'{"one": 1}\n{"long": "' + b"x" * 500)
        made.supervisor.loop = asyncio.get_running_loop()

        async def wait():
            return 0

        with linked() as (ours, theirs):
            theirs.close()
            made.supervisor.stopping = True
            following = asyncio.create_task(made.supervisor._follow(
                Child(SimpleNamespace(pid=7, stdout=stdout, wait=wait), ours)))
            while not made.journal.lost:
                await asyncio.sleep(0)
            stdout.feed_data(b'xxx"}\n{"two": 2}\n')
            stdout.feed_eof()
            await following

    asyncio.run(follow())
    assert (made.relayed, made.journal.lost) == (['{"one": 1}', '{"two": 2}'], 1)


def test_who_asks_for_the_claim_waits_where_there_is_no_descriptor(monkeypatch):
    """The event loop was busy with nothing else, and wrote a traceback each time around."""
    tries = []

    async def ask():
        problems = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, problem: problems.append(problem))

        async def accept(claim):
            tries.append(claim)
            return await loop.sock_accept(claim)

        monkeypatch.setattr(supervisor.asyncio, "get_running_loop", lambda: SimpleNamespace(sock_accept=accept))
        with socket.socket(socket.AF_UNIX) as claim, socket.socket(socket.AF_UNIX) as other:
            claim.setblocking(False)
            claim.bind(f"\0edgeblock-test-{os.getpid()}")
            claim.listen()
            greeting = asyncio.create_task(greet(claim))
            await asyncio.sleep(0)
            with descriptors_left(0):
                other.connect(claim.getsockname())
                await asyncio.sleep(0.05)
            other.setblocking(False)
            assert await loop.sock_recv(other, 1) == b""
            await supervisor.give_up(greeting)
        assert not problems and len(tries) <= 3

    uvloop.run(ask())
