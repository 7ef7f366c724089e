"""What systemd is told, and what it has kept for us (sd_notify(3), sd_listen_fds(3)).

In: states, and open files to keep. Out: one datagram to NOTIFY_SOCKET, where there is one; the files that an earlier
process of the service has had kept.
"""

import array
import os
import socket
import time

FIRST_FILE = 3      # SD_LISTEN_FDS_START


def notify(*, file: int = -1, **states: str) -> None:
    """Tells the service manager, as in `notify(READY="1", STATUS="2 lists in force")`. Never raises, never waits.

    `file` goes with FDSTORE="1": the manager keeps it open for the next process of the service.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if "RELOADING" in states:
        states["MONOTONIC_USEC"] = str(time.monotonic_ns() // 1000)
    message = "\n".join(f"{name}={value}" for name, value in states.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
            manager.connect("\0" + address[1:] if address[0] == "@" else address)
            files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))] if file >= 0 else []
            manager.sendmsg([message.encode()], files)
    except OSError:         # nobody is listening, or there is no descriptor to be had; that is not ours to fix
        return


def kept_files() -> dict[str, int]:
    """The files that the manager has kept open, by the names they were given.

    From here on they are this process's alone: if it fails, they are closed with it.
    """
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    count, process = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    if process != str(os.getpid()) or not count.isdecimal() or len(names) != int(count):
        return {}
    files = dict(zip(names, range(FIRST_FILE, FIRST_FILE + len(names)), strict=True))
    for name, file in files.items():
        os.set_inheritable(file, False)
        notify(FDSTOREREMOVE="1", FDNAME=name)
    return files


def watchdog_seconds() -> float:
    """Within how many seconds the service manager wants to hear WATCHDOG=1; 0 where it does not."""
    try:
        if int(os.environ.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return 0.0
        return int(os.environ["WATCHDOG_USEC"]) * 1e-6
    except (KeyError, ValueError):
        return 0.0
