"""NAME.toml: what it says, and what it may not say."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from edgeblock.blocklist.settings import ListSettings, parse_settings
from edgeblock.errors import ListError

DEFAULTS = ListSettings(action="drop", https="host")


def parse(text):
    return parse_settings(text if isinstance(text, bytes) else text.encode(), "court.toml", DEFAULTS, ("domains",))


def test_empty_means_the_defaults():
    assert parse("") == DEFAULTS
    assert parse("# nothing\n") == DEFAULTS


def test_every_key():
    assert parse("""
        action = "page"
        category = "court orders"
        format = "domains"
        https = "ignore"
        mandatory = true
        expires = 2030-01-02
    """) == ListSettings("page", "court orders", "domains", "ignore", True, datetime(2030, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(("text", "when"), [
    ("2030-01-02T03:04:05Z", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ("2030-01-02 03:04:05", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ("2030-01-02T03:04:05+02:00", datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))),
])
def test_expiry_to_the_second(text, when):
    assert parse(f"expires = {text}").expires == when


def test_a_byte_order_mark_is_normal():
    assert parse(b"\xef\xbb\xbfaction = 'page'\r\n").action == "page"


@pytest.mark.parametrize(("text", "why"), [
    ("acton = 'drop'", "court.toml: unknown key 'acton'; did you mean 'action'?"),
    ("zzz = 1", "court.toml: unknown key 'zzz'; known are action, allow_addresses, allow_protected, "
     "allow_public_suffixes, category, expires, format, https, mandatory, max_growth, max_shrink, max_unparsable, "
     "signer, widest_ipv4, widest_ipv6"),
    ("action = 'block'", "court.toml: action = 'block' is not one of drop, reset, page, redirect, observe"),
    ("action = 3", "court.toml: action = 3 is not one of drop, reset, page, redirect, observe"),
    ("action = ['drop']", "court.toml: action = ['drop'] is not one of drop, reset, page, redirect, observe"),
    ("https = true", "court.toml: https = True is not one of ignore, host"),
    ("format = 'csv2'", "court.toml: format = 'csv2' is not one of domains"),
    ("category = 5", "court.toml: category = 5 is no text in quotes"),
    ("mandatory = 'yes'", "court.toml: mandatory = 'yes' is neither true nor false"),
    ("expires = '2030-01-02'", "court.toml: expires = '2030-01-02' is no date such as 2030-12-31 without quotes"),
    ("expires = 5", "court.toml: expires = 5 is no date such as 2030-12-31 without quotes"),
    ("mandatory = true\naction = 'observe'",
     "court.toml: mandatory = true needs an action that blocks, and observe does not"),
])
def test_refused_in_one_line(text, why):
    with pytest.raises(ListError) as refused:
        parse(text)
    assert str(refused.value) == why


@pytest.mark.parametrize("text", ["action =", "= 3", "a = 1\na = 2", b"action = '\xff'", "\x00"])
def test_no_toml(text):
    with pytest.raises(ListError, match=r"^court\.toml: not readable as TOML: [^\n]+$"):
        parse(text)
