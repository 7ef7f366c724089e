"""NAME.toml: what it says, and what it may not say."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from edgeblock.blocklist.formats import READERS
from edgeblock.blocklist.settings import ListSettings, default_settings, parse_settings
from edgeblock.config import Rules
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
        column = "url"
        delimiter = ";"
        subdomains = false
    """) == ListSettings("page", "court orders", "domains", "ignore", True, datetime(2030, 1, 2, tzinfo=UTC),
                         column="url", delimiter=";", subdomains=False)
    assert parse("column = 3").column == 3


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
    ("language = 'de'", "court.toml: unknown key 'language'; it is one of [reply] in the main configuration, "
     "for all lists"),
    ("clients = 'subs.txt'", "court.toml: clients = 'subs.txt' is no name of a file beside the list that ends in "
     '.clients, such as "family.clients"; prefixes stand in a list, such as ["192.0.2.0/24"]; '
     "a file of another name is read as a list, which blocks these addresses: if it is there, rename it now"),
    ("zzz = 1", "court.toml: unknown key 'zzz'; known are action, allow_addresses, allow_collateral, "
     "allow_protected, allow_public_suffixes, allow_shared, approved_by, attributes, authority, category, clients, "
     "clients_except, column, contact, delimiter, drop_past_days, encoding, expires, format, from, guarded, https, "
     "mandatory, max_collateral, max_growth, max_guarded, max_shrink, max_unparsable, order, page, reason, received, "
     "redirect, reference, signer, status, subdomains, until, weekly, widest_ipv4, widest_ipv6, zone"),
    ("encoding = 'zip'", "court.toml: encoding = 'zip' is no encoding in quotes that lists are read in, such as "
     '"cp1251", "koi8-r", "iso-8859-1", "gb18030" or "utf-16"'),
    ("attributes = 'until'", "court.toml: attributes = 'until' is no list of at most 16 names in lower case, such as "
     '["until", "order"]'),
    ("action = 'block'", "court.toml: action = 'block' is not one of drop, reset, page, redirect, observe"),
    ("action = 3", "court.toml: action = 3 is not one of drop, reset, page, redirect, observe"),
    ("action = ['drop']", "court.toml: action = ['drop'] is not one of drop, reset, page, redirect, observe"),
    ("https = true", "court.toml: https = True is not one of ignore, host"),
    ("format = 'csv2'", "court.toml: format = 'csv2' is not one of domains"),
    ("category = 5", "court.toml: category = 5 is no text in quotes"),
    ("mandatory = 'yes'", "court.toml: mandatory = 'yes' is neither true nor false"),
    ("subdomains = 1", "court.toml: subdomains = 1 is neither true nor false"),
    ("column = 0", "court.toml: column = 0 is neither the head of a column in quotes nor a number from 1 on"),
    ("column = true", "court.toml: column = True is neither the head of a column in quotes nor a number from 1 on"),
    ("column = ''", "court.toml: column = '' is neither the head of a column in quotes nor a number from 1 on"),
    ("delimiter = ', '",
     "court.toml: delimiter = ', ' is no single character in quotes, such as \";\" or \"\\t\""),
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


@pytest.mark.parametrize(("text", "why"), [
    ("[rules]\naction = 'page'", "[rules] is a section, and the settings of a list have none; write their keys "
                                 "without it"),
    ("[attributes]\n", "[attributes] is a section, and the settings of a list have none; write their keys without "
                       "it"),
    ("action = page\n", "not readable as TOML: Invalid value (at line 1, column 10); text stands in quotes, only "
                        "numbers, dates, true and false without"),
])
def test_what_is_no_setting_says_what_is_meant(text, why):
    with pytest.raises(ListError) as refused:
        parse(text)
    assert str(refused.value) == f"court.toml: {why}"


def test_what_is_told_those_who_are_blocked():
    made = parse("""
        page = "court.html"
        reason = "By order"
        contact = "court@isp.example"
        status = 403
        redirect = "https://isp.example/?r=$reference"
    """)
    assert (made.page, made.reason, made.contact, made.status, made.redirect) == (
        "court.html", (("", "By order"),), "court@isp.example", 403, "https://isp.example/?r=$reference")
    assert parse('reason = {en = "By order", PT-br = "Ordem"}').reason == (("en", "By order"), ("pt-BR", "Ordem"))
    assert parse('[reason]\nde = "Auf Anordnung"\n').reason == (("de", "Auf Anordnung"),)
    assert parse('reason = ""\npage = ""\nredirect = ""') == DEFAULTS


@pytest.mark.parametrize(("text", "why"), [
    ('status = 302', "status = 302 must be one of 200, 403, 404, 410, 451"),
    ('status = true', "status = True must be one of"),
    ('redirect = "https://x/\\r\\nSet-Cookie: a"', "must be an http or https URL in ASCII of at most 2000"),
    ('redirect = "javascript:alert(1)"', "must be an http or https URL"),
    ('contact = "a\\nb"', "must be one line of text of at most 1000 characters"),
    ('reason = "a\\nb"', "must be one line of text of at most 1000 characters in quotes, or one for each language"),
    ('reason = 5', "must be one line of text"),
    ('reason = {english = "x"}', "'english' is no language such as en or pt-BR"),
    ('reason = {en = 5}', "must be one line of text"),
    ("reason = {" + ", ".join(f'a{letter} = "x"' for letter in "abcdefghijklmnopq") + "}", "one line of text"),
    (f'reason = "{"x" * 1001}"', "must be one line of text"),
    ('page = "../x.html"', "must be the name of a file beside the list that ends in .html"),
])
def test_what_nobody_can_be_told(text, why):
    with pytest.raises(ListError) as refused:
        parse(text)
    assert why in str(refused.value) and "\n" not in str(refused.value)


KEY = "RWQIYZhjRAdK1tTZS7zr5w78f2dbYEU7HkLlldiGzR4b+QSfet34MHfo"


def test_the_guard_rails():
    made = parse(f"""
        signer = "{KEY}"
        allow_public_suffixes = true
        allow_protected = ["WWW.Bücher.test.", "192.0.2.1", "2001:DB8::/32"]
        allow_addresses = []
        widest_ipv4 = 8
        max_growth = 10
        max_shrink = 1
        max_unparsable = 0.25
    """)
    assert (made.signer, made.allow_public_suffixes, made.allow_addresses) == (KEY, True, ())
    assert made.allow_protected == ("www.xn--bcher-kva.test", "192.0.2.1", "2001:db8::/32")
    assert (made.widest_ipv4, made.widest_ipv6) == (8, ListSettings.widest_ipv6)
    assert (made.max_growth, made.max_shrink, made.max_unparsable) == (10.0, 1.0, 0.25)


@pytest.mark.parametrize(("text", "why"), [
    ("widest_ipv4 = 33", "court.toml: widest_ipv4 = 33 must be a whole number from 0 to 32"),
    ("max_growth = 0.5", "court.toml: max_growth = 0.5 must be a number from 1 to 1e+09"),
    ("max_shrink = '50 %'", "court.toml: max_shrink = '50 %' must be a number from 0 to 1"),
    ("max_unparsable = nan", "court.toml: max_unparsable = nan must be a number from 0 to 1"),
    ("allow_protected = 'a.example'", "court.toml: allow_protected = 'a.example' must be true, false, or a list of "
     "what is allowed, each in quotes"),
    ("allow_protected = ['a..b']", "court.toml: allow_protected: 'a..b' has an empty label"),
    ("allow_addresses = ['10.0.0.1/8']", "court.toml: allow_addresses: 10.0.0.1/8 has host bits set"),
    ("signer = 5", "court.toml: signer = 5 is no minisign public key in quotes"),
    ("signer = 'RW'", "court.toml: signer = 'RW' is no minisign public key; take the line of the .pub file that "
     "begins with RW"),
])
def test_a_wrong_guard_rail_is_refused_in_one_line(text, why):
    with pytest.raises(ListError) as refused:
        parse(text)
    assert str(refused.value) == why


def test_the_defaults_come_from_the_main_configuration():
    assert default_settings(Rules()) == ListSettings()
    made = default_settings(Rules(action="page", https="host", allow_protected=("A.Example",), max_growth=7.0,
                                  signers=(KEY, f"court={KEY}")))
    assert (made.action, made.https, made.allow_protected, made.max_growth) == ("page", "host", ("a.example",), 7.0)
    with pytest.raises(ListError, match=r"^\[rules\] allow_addresses: 'x y' "):
        default_settings(Rules(allow_addresses=("x y",)))
    with pytest.raises(ListError, match=r"^\[rules\] signers = 'nonsense' is no minisign public key"):
        default_settings(Rules(signers=("court=nonsense",)))


def test_all_mistakes_are_told_at_once():
    text = (b'action = "blok"\nactoin = "drop"\nmandatory = 1\nwidest_ipv4 = 99\nallow_addresses = ["bad name"]\n'
            b'zone = 5\n')
    with pytest.raises(ListError) as caught:
        parse_settings(text, "a.toml", ListSettings(), tuple(READERS))
    assert [line.partition(" = ")[0] for line in caught.value.args] == [
        "a.toml: action", "a.toml: unknown key 'actoin'; did you mean 'action'?", "a.toml: mandatory",
        "a.toml: widest_ipv4", "a.toml: allow_addresses: 'bad name' has a character that no host can have",
        "a.toml: zone"]
