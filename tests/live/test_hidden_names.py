"""Hellos with an Encrypted ClientHello through the daemon: the noise of browsers, and a name listed with ech=only."""

import pytest
from curl_cffi import requests
from running import Running
from test_verdicts import impersonate

from edgeblock.lab import page, until

pytestmark = pytest.mark.live


def is_refused(running: Running, host: str, version: int) -> bool:
    """Whether Chromium's hello, which has the extension always, gets a fatal alert."""
    try:
        assert impersonate(running.lab, f"https://{host}/", version).content == page(host)
    except requests.exceptions.RequestException as failure:
        return "ACCESS_DENIED" in str(failure)
    return False


@pytest.mark.parametrize("version", [4, 6])
def test_a_listed_public_name_is_blocked_in_hellos_with_ech_alone(fresh: Running, version: int,
                                                                  monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
    assert not is_refused(fresh, "open.example", version)
    fresh.drop("public.list", "open.example ech=only order=7\n")
    assert until(lambda: is_refused(fresh, "open.example", version), 20.0)
    assert not is_refused(fresh, "fine.listed.example", version)
    seen = fresh.lab.fetch("https://open.example/", version=version)      # curl with OpenSSL has no such extension
    assert (seen.status, seen.body) == (200, page("open.example"))
    counters = fresh.lab.counters(fresh.daemon)
    assert 1 <= counters["engine.hellos_ech_known"] < counters["engine.hellos_ech"]
