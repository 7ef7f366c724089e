"""Workers that end, that cannot be told or started, and what they leave behind."""

import asyncio
import os
import socket
from types import SimpleNamespace

import pytest
import uvloop

from edgeblock.config import Config
from edgeblock.daemon import children
from edgeblock.daemon.board import Board
from edgeblock.daemon.children import Child
from edgeblock.daemon.process import start
from edgeblock.daemon.tasks import Tasks
from edgeblock.daemon.workers import BACK_OFF_MAX, Workers
from tests.daemon.parts import Log, linked


@pytest.fixture
def made():
    """Workers of which none has been started, and what they have said."""
    log = Log()
    relayed = []
    journal = SimpleNamespace(log=log, lost=0, relay=lambda now, line: relayed.append(line))
    workers = Workers(Config(), journal, Board(1), Tasks(lambda: None), {})
    return SimpleNamespace(workers=workers, log=log, relayed=relayed, journal=journal)


def ended(stdout, status):
    """A process that says the last of what it has to say."""
    async def wait():
        return status

    return SimpleNamespace(pid=7, stdout=stdout, wait=wait)


def test_no_child_gets_the_socket_of_a_queue(made):
    """One that had it kept the queue when its worker could not go on: every packet waited, for nobody."""
    slot = made.workers.slots[0]
    with linked() as (ours, theirs):
        socket.send_fds(theirs, [b'{"bound": 0, "marks_by_verdict": false}'], [0])
        made.workers.stop_replacing()
        slot.child = Child(SimpleNamespace(pid=1), ours)
        made.workers._hear(slot.child)
    file = slot.socket.file
    assert file >= 0 and not os.get_inheritable(file)
    os.close(file)


def test_a_worker_that_missed_an_order_is_not_left_with_the_old_rules(monkeypatch):
    killed = []
    monkeypatch.setattr(children, "kill", killed.append)

    def no_memory(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(children.socket, "send_fds", no_memory)
    Child("the worker", None).tell({"do": "rules"})
    assert killed == ["the worker"]


def test_a_worker_that_ended_as_it_was_told_to_is_not_killed_once_more():
    """uvloop raised ProcessLookupError, and nobody looked after workers any more."""
    async def tell():
        process = await start("this", stdout=asyncio.subprocess.DEVNULL)
        while process.returncode is None:
            await asyncio.sleep(0.01)
        with linked() as (ours, theirs):
            theirs.close()
            Child(process, ours).tell({"do": "stop"})

    uvloop.run(tell())


def test_spares_that_end_at_once_are_started_more_and_more_slowly(made):
    made.workers.serve()
    for _ in range(12):
        made.workers._put_off_spares("ended with status 1", 100.0)
    assert [more["again_in"] for _, more in made.log.said[:4]] == [0.1, 0.2, 0.4, 0.8]
    assert made.workers._back_off.due == 100.0 + BACK_OFF_MAX
    with linked() as (ours, theirs):
        theirs.send(b'{"rules": 1}')
        made.workers.stop_replacing()
        made.workers._hear(Child(SimpleNamespace(pid=1), ours))
    made.workers._put_off_spares("ended with status 1", 100.0)
    assert made.log.said[-1][1]["again_in"] == 0.1      # one was ready meanwhile


@pytest.mark.parametrize("said, kept", [
    ('{"refused": "not enough memory"}', True),         # the next one goes on with the queue, and its packets wait
    ('{"refused": "receiving from queue 0: Bad file descriptor", "broken": true}', False),
])
def test_only_a_socket_that_is_broken_is_let_go(made, said, kept):
    async def follow():
        stdout = asyncio.StreamReader()
        stdout.feed_eof()
        slot = made.workers.slots[0]
        slot.socket.file = os.dup(0)
        with linked() as (ours, theirs):
            slot.child = child = Child(ended(stdout, 2), ours, bound=True)
            asyncio.get_running_loop().add_reader(ours.fileno(), made.workers._hear, child)
            theirs.send(said.encode())
            theirs.close()
            await made.workers._follow(child)
        assert slot.child is None and (slot.socket.file >= 0) is kept
        slot.socket.let_go()

    uvloop.run(follow())


def test_a_worker_whose_lines_end_with_an_error_is_seen_off_like_any_other(made):
    async def follow():
        stdout = asyncio.StreamReader()
        stdout.set_exception(ConnectionResetError(104, "Connection reset by peer"))
        with linked() as (ours, theirs):
            theirs.close()
            child = Child(ended(stdout, -9), ours)
            made.workers._children.add(child)
            await made.workers._follow(child)
        assert not made.workers._children

    asyncio.run(follow())
    assert made.workers._back_off.problem == "ended with status -9"


def test_a_line_that_is_too_long_costs_itself_only(made):
    async def follow():
        stdout = asyncio.StreamReader(limit=100)
        stdout.feed_data(b'{"one": 1}\n{"long": "' + b"x" * 500)
        with linked() as (ours, theirs):
            theirs.close()
            made.workers.stop_replacing()
            following = asyncio.create_task(made.workers._follow(Child(ended(stdout, 0), ours)))
            while not made.journal.lost:
                await asyncio.sleep(0)
            stdout.feed_data(b'xxx"}\n{"two": 2}\n')
            stdout.feed_eof()
            await following

    asyncio.run(follow())
    assert (made.relayed, made.journal.lost) == (['{"one": 1}', '{"two": 2}'], 1)
