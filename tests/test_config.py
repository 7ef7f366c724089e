"""The configuration: what ships says what is, and every mistake is one line with the way out."""

import re
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path

import pytest

from edgeblock import config
from edgeblock.blocklist.settings import GUARD_KEYS, ListSettings
from edgeblock.config import LOCKABLE, Config, load, parse
from edgeblock.errors import ConfigError

HERE = Path("/nowhere")


def uncommented():
    text = files("edgeblock").joinpath("edgeblock.toml").read_text("utf-8")
    return re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE)


def test_the_shipped_file_says_the_defaults():
    """But for one key: what a NAME.toml may not change on a box it may on a desk. Leaving entries out is harmless."""
    locked = ("mandatory", *(set(GUARD_KEYS) - {"guarded", "max_guarded"}), "redirect", "page", "contact", "provider",
              "help")
    for text in (files("edgeblock").joinpath("edgeblock.toml").read_text(), uncommented()):
        shipped = parse(text, "shipped", HERE)
        assert set(shipped.rules.locked) == set(locked)
        assert replace(shipped, rules=replace(shipped.rules, locked=())) == Config()


def test_every_setting_of_a_list_can_be_locked():
    assert {key.name for key in fields(ListSettings)} - {"locked", "unlocked"} <= set(LOCKABLE)
    assert parse('[rules]\nlocked = ["action"]\nunlocked = ["court", "b=action"]', "x", HERE).rules.unlocked == (
        "court", "b=action")
    for text in ('locked = ["acton"]', "locked = true", 'unlocked = ["court=acton"]', 'unlocked = ["=action"]'):
        with pytest.raises(ConfigError):
            parse(f"[rules]\n{text}", "x", HERE)


def test_the_shipped_file_documents_every_key_in_its_section():
    section, found = None, set()
    for line in uncommented().splitlines():
        if match := re.match(r"\[(\w+)\]", line):
            section = match[1]
        elif match := re.match(r"(\w+) = ", line):
            found.add((section, match[1]))
    assert found == {(part.name, key.name) for part in fields(Config) for key in fields(part.default_factory)}


def test_every_kind_of_value_is_read():
    made = parse("""
        [rules]
        directory = "lists"
        key = "/etc/key"
        action = "page"
        [queue]
        number = 65535
        overload = "closed"
        [ruleset]
        install = false
        hooks = ["input", "output", "input"]
        tcp_ports = "all"
        udp_ports = []
        mark_mask = 0x3
        [limits]
        idle = 5
        [reply]
        status = 403
        page = "page.html"
        provider = "Käse & Söhne"
        """, "x", HERE)
    assert made.rules.directory == HERE / "lists" and made.rules.key == Path("/etc/key")
    assert (made.queue.number, made.queue.overload, made.queue.length) == (65535, "closed", 8192)
    assert made.ruleset.hooks == ("input", "output")
    assert (made.ruleset.tcp_ports, made.ruleset.udp_ports, made.ruleset.mark_mask) == ("all", (), 3)
    assert made.limits.idle == 5.0 and isinstance(made.limits.idle, float)
    assert (made.reply.status, made.reply.page, made.reply.provider) == (403, HERE / "page.html", "Käse & Söhne")


@pytest.mark.parametrize("text, message", [
    ("[queue]\nnumbre = 1", "unknown key 'numbre' in [queue]; did you mean number?"),
    ("[queue]\nzzz = 1", "unknown key 'zzz' in [queue]; known are number, workers, length, buffer, overload"),
    ("[quue]\nnumber = 1", "unknown section 'quue'; did you mean [queue]?"),
    ("[xyzzy]", "unknown section 'xyzzy'; known are [rules], [queue],"),
    ("overload = 'open'", "unknown key 'overload'; it belongs under [queue]"),
    ("queue = 1", "queue = 1 must be a section: [queue]"),
    ("[queue]\nnumber = 65536", "[queue] number = 65536 must be a whole number from 0 to 65535"),
    ("[queue]\nnumber = -1", "must be a whole number from 0 to 65535"),
    ("[queue]\nnumber = true", "[queue] number = true must be a whole number"),
    ("[queue]\nnumber = 1.0", "[queue] number = 1.0 must be a whole number"),
    ("[queue]\nnumber = '1'", "[queue] number = '1' must be a whole number"),
    ("[queue]\nworkers = 0", '[queue] workers = 0 must be a whole number from 1 to 1024, or "auto"'),
    ('[metrics]\nlisten = "0.0.0.0:"', "must be an address and a port"),
    ('[metrics]\nlisten = "box.test:1"', "must be an address and a port"),
    ("[queue]\noverload = 'opne'", "[queue] overload = 'opne' must be one of \"open\", \"closed\""),
    ("[queue]\noverload = ['open']", "must be one of"),
    ("[ruleset]\ninstall = 1", "[ruleset] install = 1 must be true or false"),
    ("[ruleset]\nhooks = 'forward'", "must be a list of \"forward\", \"input\", \"output\""),
    ("[ruleset]\nhooks = []", "must be a list of"),
    ("[ruleset]\nhooks = [['forward']]", "must be a list of"),
    ("[ruleset]\ntcp_ports = [0]", "must be a list of ports from 1 to 65535, or \"all\""),
    ("[ruleset]\ntcp_ports = 'any'", "must be a list of ports"),
    ("[ruleset]\nmark_mask = 0", "must be bits of 32, such as 0x30000000"),
    ("[ruleset]\ninject_mark = 0x100000000", "must be bits of 32, such as 0x40000000"),
    ("[limits]\nidle = 0", "[limits] idle = 0 must be seconds, from 1 to 86400"),
    ("[limits]\nidle = nan", "[limits] idle = nan must be seconds"),
    ("[reply]\nstatus = 302", "[reply] status = 302 must be one of 200, 403, 404, 410, 451"),
    ("[reply]\nprovider = \"a\\nb\"", "must be one line of text in quotes"),
    ("[rules]\ndirectory = ''", "[rules] directory = '' must be a path in quotes"),
    ("[rules]\nkey = 5", "[rules] key = 5 must be a path in quotes"),
    ("[rules]\nmax_growth = 0.5", "[rules] max_growth = 0.5 must be a number from 1 to 1e+09"),
    ("[rules]\nmax_shrink = true", "[rules] max_shrink = true must be a number from 0 to 1"),
    ("[rules]\nallow_protected = [5]", "must be true, false, or a list of what is allowed, each in quotes"),
    ("[rules]\nsigners = \"RW\"", "must be a list of texts in quotes"),
    ("[rules]\nwidest_ipv4 = 33", "must be a whole number from 0 to 32"),
    ("[rules]\nnat64 = '2001:db8:64::/96'", "must be a list of at most 16 IPv6 prefixes, such as"),
    ("[rules]\nnat64 = ['2001:db8::/64', '2001:db8::1/64']", "; '2001:db8::1/64' is none, as it has bits beyond its"),
    ("[rules]\nnat64 = ['2001:db8::/64', 5]", "; 5 is none"),
    ("[rules]\nnat64 = ['2001:db8::/65']", "of 32, 40, 48, 56, 64, 96 bits (RFC 6052); '2001:db8::/65' has 65"),
    ("[rules\n", "not TOML: "),
    ("[rules]\ndirectory = /x\n", "not TOML: Invalid value (at line 2, column 13); text stands in quotes, only "),
    ("[queue]\nnumber = 1\nnumber = 2", "not TOML: "),
])
def test_a_mistake_is_one_line_that_says_what_is_allowed(text, message):
    with pytest.raises(ConfigError) as caught:
        parse(text, "box.toml", HERE)
    assert str(caught.value).startswith("box.toml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_read_and_its_paths_are_beside_it(tmp_path):
    file = tmp_path / "box.toml"
    file.write_text("\ufeff[rules]\ndirectory = 'lists'\n")
    assert load(file).rules.directory == tmp_path / "lists"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="absent.toml: cannot be read: No such file"):
        load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"[reply]\nprovider = \"K\xe4se\"")
    with pytest.raises(ConfigError, match="latin.toml: not UTF-8 at byte 21"):
        load(tmp_path / "latin.toml")


def test_no_file_is_the_defaults(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "edgeblock.toml")
    assert load() == Config()
    (tmp_path / "edgeblock.toml").write_text("[queue]\nnumber = 3\n")
    assert load().queue.number == 3


@pytest.mark.parametrize(("older", "kernel"), [
    ('stage1 = "auto"', "auto"), ('stage1 = "on"', "judge"), ('stage1 = "off"', "off"),
    ('tracking = "conntrack"', "auto"), ('tracking = "stage1"', "marks"),
    ('stage1 = "on"\ntracking = "stage1"', "marks"),
    ('tracking = "stage1"\nshortcut = true', "carry"), ('stage1 = "off"\nshortcut = false', "off"),
])
def test_what_the_kernel_does_is_still_read_from_its_three_older_keys(older, kernel):
    assert parse(f"[ruleset]\n{older}\n", "x", HERE) == parse(f'[ruleset]\nkernel = "{kernel}"\n', "x", HERE)


@pytest.mark.parametrize(("text", "message"), [
    ('stage1 = "maybe"', '[ruleset] stage1 = \'maybe\' must be one of "auto", "on", "off"'),
    ("shortcut = 1", "[ruleset] shortcut = 1 must be true or false"),
    ("shortcut = true", 'ruleset.shortcut needs ruleset.tracking = "stage1"; say kernel = "carry" for both'),
    ('stage1 = "off"\ntracking = "stage1"', 'ruleset.tracking: "stage1" needs the first stage; say kernel = "marks"'),
    ('kernel = "carry"\nstage1 = "on"\nshortcut = true', "kernel says what stage1 and shortcut said; take that out"),
])
def test_older_keys_that_make_no_sense_are_one_line(text, message):
    with pytest.raises(ConfigError) as caught:
        parse(f"[ruleset]\n{text}\n", "x", HERE)
    assert str(caught.value).startswith("x: ") and message in str(caught.value) and "\n" not in str(caught.value)
