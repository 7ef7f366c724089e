"""A release is tried before it lands: what this box's guard rails would refuse, in a process that has its bounds.

In: a folder with its files, the configuration of the daemon, seconds. Out: the first errors of lint, or why it could
not be tried. The process has limits of processor time and memory and is killed when its time is up, so a list that
is made to take long takes no more than that. Never here: a file in the drop directory.
"""

import asyncio
import json
import resource
import sys
from contextlib import suppress
from pathlib import Path

from edgeblock import config
from edgeblock.blocklist import lint
from edgeblock.blocklist.refresh import harmless
from edgeblock.blocklist.store import readable_key
from edgeblock.errors import EdgeblockError

MEMORY = 4 << 30            # bytes of address space; ten million entries take one
ERRORS_MAX = 100            # that are told
ANSWER_MAX = 1 << 20        # bytes of an answer, which is one line


async def tried(folder: Path, configuration: Path | None, seconds: float) -> list[tuple[str, str]]:
    """What this box would refuse: files with the reason, without a word of a list; [] is nothing.

    Raises:
        TimeoutError: it takes longer.
        OSError: no process can be started, or it has no answer, for want of memory or by this box's configuration.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, str(folder), str(configuration or ""), str(int(seconds) + 1),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        limit=ANSWER_MAX)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(seconds):
            said = await process.stdout.readline()
            await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        told = json.loads(said)
        if isinstance(told, str):
            raise ChildProcessError(told)
        return [(str(file), str(why)) for file, why in told]
    except (ValueError, TypeError):
        raise ChildProcessError(f"the process that does so ended with status {process.returncode}") from None


def main(folder: str, configuration: str, seconds: str) -> None:
    """In the process: the errors as JSON. Without the configuration's own lists, keys and protected names, where it
    may not read them: what it does not know it refuses nothing for."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        whole = config.load(configuration or None)
        report = lint.lint(folder, whole.rules, key=readable_key(whole.rules.key), redirect=whole.reply.redirect)
        errors = [(finding.file, harmless(finding, "`edgeblock lint`")) for finding in report.errors]
    except EdgeblockError as problem:
        print(json.dumps(str(problem)))         # of this box, and no fault of the lists
        return
    print(json.dumps(errors[:ERRORS_MAX]))


if __name__ == "__main__":
    main(*sys.argv[1:])
