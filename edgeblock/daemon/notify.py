"""What systemd is told (sd_notify(3)). In: states. Out: one datagram to NOTIFY_SOCKET, where there is one."""

import os
import socket
import time


def notify(**states: str) -> None:
    """Tells the service manager, as in `notify(READY="1", STATUS="2 lists in force")`. Never raises, never waits."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if "RELOADING" in states:
        states["MONOTONIC_USEC"] = str(time.monotonic_ns() // 1000)
    message = "\n".join(f"{name}={value}" for name, value in states.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        try:
            manager.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError:     # nobody is listening; that is not ours to mend
            return


def watchdog_seconds() -> float:
    """Within how many seconds the service manager wants to hear WATCHDOG=1; 0 where it does not."""
    try:
        if int(os.environ.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return 0.0
        return int(os.environ["WATCHDOG_USEC"]) * 1e-6
    except (KeyError, ValueError):
        return 0.0
