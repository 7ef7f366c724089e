"""What owners publish, in the shapes that they use: networks out, or one line on what is wrong."""

import json
from datetime import date

import pytest

from edgeblock.blocklist.published import Published, read_published, renew, sections_of
from edgeblock.blocklist.shared import NOTHING, Shared, network_of, parse_shared, shipped_shared
from edgeblock.errors import ListError

TODAY = date(2026, 11, 30)
SHAPES = {
    "plain": ("# ours\n8.8.4.0/24\r\n8.8.8.8 ; one\n\n2606:4700::/32\n", None,
              [("", "8.8.4.0/24"), ("", "8.8.8.8/32"), ("", "2606:4700::/32")]),
    "a table": ('8.8.4.0/24,US,US-NJ,North Bergen,07047\n"8.8.8.0/24";x\n', None,
                [("", "8.8.4.0/24"), ("", "8.8.8.0/24")]),
    "prefixes with services": (
        {"syncToken": "1", "createDate": "2026-08-22-15-17-05",
         "prefixes": [{"ip_prefix": "8.8.4.0/24", "region": "eu", "service": "CDN", "network_border_group": "eu"}],
         "ipv6_prefixes": [{"ipv6_prefix": "2606:4700::/32", "service": "STORE"}]},
        date(2026, 8, 22), [("CDN", "8.8.4.0/24"), ("STORE", "2606:4700::/32")]),
    "ipv4Prefix": ({"creationTime": "2026-08-16T19:16:28.780563",
                    "prefixes": [{"ipv4Prefix": "8.8.4.0/24"}, {"ipv6Prefix": "2606:4700::/32", "scope": "x"}]},
                   date(2026, 8, 16), [("", "8.8.4.0/24"), ("", "2606:4700::/32")]),
    "service tags": ({"changeNumber": 363, "cloud": "Public", "values": [
        {"name": "Front.Door", "id": "x", "properties": {"region": "", "addressPrefixes": ["8.8.4.0/24"]}},
        {"name": "Store", "properties": {"addressPrefixes": ["2606:4700::/32", "8.8.8.8/32"]}}]}, None,
        [("Front.Door", "8.8.4.0/24"), ("Store", "2606:4700::/32"), ("Store", "8.8.8.8/32")]),
    "addresses": ({"addresses": ["8.8.4.0/24"], "ipv6_addresses": ["2606:4700::/32"]}, None,
                  [("", "8.8.4.0/24"), ("", "2606:4700::/32")]),
    "an answer of an API": ({"result": {"ipv4_cidrs": ["8.8.4.0/24"], "ipv6_cidrs": ["2606:4700::/32"],
                                        "etag": "x"}, "success": True}, None,
                            [("", "8.8.4.0/24"), ("", "2606:4700::/32")]),
    "ipRanges": ({"ipRanges": ["8.8.4.0/24"], "ipv6Ranges": ["2606:4700::/32"], "res": 0}, None,
                 [("", "8.8.4.0/24"), ("", "2606:4700::/32")]),
    "regions": ({"last_updated_timestamp": "2026-08-08T00:00:00", "regions": [
        {"region": "a", "cidrs": [{"cidr": "8.8.4.0/24", "tags": ["OCI"]}, {"cidr": "8.8.8.0/24", "tags": []}]}]},
        date(2026, 8, 8), [("", "8.8.4.0/24"), ("", "8.8.8.0/24")]),
    "a key for each service": ({"verifiable": False, "ssh_keys": ["ssh-ed25519 AAAA"], "web": ["8.8.4.0/24"],
                                "pages": ["8.8.8.8/32"], "domains": {"website": ["*.example.com"]}}, None,
                               [("web", "8.8.4.0/24"), ("pages", "8.8.8.8/32")]),
    "a list of services": ([{"id": 1, "serviceArea": "Mail", "urls": ["m.example.com"], "ips": ["8.8.4.0/24"]},
                            {"id": 2, "serviceArea": "Docs", "urls": []}], None, [("Mail", "8.8.4.0/24")]),
    "a list": (["8.8.4.4", "8.8.8.8"], None, [("", "8.8.4.4/32"), ("", "8.8.8.8/32")]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_read(shape):
    said, day, networks = SHAPES[shape]
    text = said if isinstance(said, str) else json.dumps(said)
    found = read_published(text.encode("utf-8-sig"), "file")
    assert found.day == day and [(service, str(network)) for service, network in found.networks] == networks


@pytest.mark.parametrize(("text", "why"), [
    (b"", "file: no network was found in it"), (b"{}", "file: no network was found"), (b"[]", "file: no network"),
    (b"# only words\n", "file: no network was found"), (b"<!DOCTYPE html>", "file: is a web page"),
    (b'{"prefixes": [{"ip_prefix": "8.8.4.0/2', "file: is no whole JSON"),
    (b"\xff\xfe\x00", "file: is no text in UTF-8"), (b"8.8.4.4/24\n", "file:1: '8.8.4.4/24' is no"),
    (b"8.8.4.0/24\n8.8.8.0/2x\n", "file:2: '8.8.8.0/2x' is no network"),
    (b"example.com\n", "file:1: 'example.com' is no network"), (b",8.8.8.8\n", "file:1: ',8.8.8.8' does not begin"),
    (b"0.0.0.0/0\n", "file: 0.0.0.0/0 is wider than /8"), (b"2000::/3\n", "file: 2000::/3 is wider than /16"),
    (b"10.0.0.0/8\n", "file: 10.0.0.0/8 is no public network"), (b"127.0.0.1\n", "file: 127.0.0.1/32 is no public"),
    (b'{"addresses": ["8.8.4.0/24", "nonsense"]}', "file: addresses: 'nonsense' is no network"),
    (b'{"prefixes": [{"ip_prefix": "8.8.4.0/99"}]}', "file: ip_prefix: '8.8.4.0/99' is no network"),
    (b'["8.8.4.0/24", "nonsense"]', "file: 'nonsense' is no network"), (b"[" * 100000, "file: is no whole JSON"),
    (b"[" * 40 + b'{"cidr": "8.8.8.8"}' + b"]" * 40, "file: is nested too deeply"),
    (b'{"createDate": "2026-13-45-1", "addresses": ["8.8.8.8"]}', "file: '2026-13-45' is no day")])
def test_nonsense_is_one_line(text, why):
    with pytest.raises(ListError) as refused:
        read_published(text, "file")
    assert str(refused.value).startswith(why) and "\n" not in str(refused.value)


KNOWN = parse_shared(b"""[Two files]
kind = cdn
source = https://two.example/
date = 2026-01-01
files = ips-v4 ips-v6
8.8.4.0/24
2606:4700::/32

[Store]
kind = object store
source = https://big.example/ranges.json
date = 2026-01-01
files = ranges.json
services = STORE
8.8.8.0/24

[Front]
kind = front
source = https://big.example/front.json
date = 2026-01-01
files = front.json
without = Machines
9.9.9.0/24

[Machines]
kind = cloud
source = https://big.example/ranges.json
date = 2026-01-01
files = ranges.json
services = VM
widest_ipv4 = 24
widest_ipv6 = 48
11.0.0.0/16

[Other]
kind = cdn
source = https://other.example/
date = 2026-01-01
files = same-name
1.1.1.0/24

[Another]
kind = cdn
source = https://another.example/
date = 2026-01-01
files = same-name
1.0.0.0/24
""", "known")


def published(*networks: str, service: str = "", day: date = date(2026, 6, 1)) -> Published:
    found = read_published("\n".join(networks).encode(), "file")
    return Published(day, [(service, network) for _, network in found.networks])


def names(files: list[str]) -> list[str]:
    return [section.name for section in sections_of(KNOWN, files)]


def test_files_are_known_by_their_names():
    assert names(["ips-v4.txt", "/somewhere/ips-v6"]) == ["Two files"]
    assert names(["ranges.json"]) == ["Store", "Machines"]
    assert names(["ranges_20260822.json", "front.json"]) == ["Store", "Front", "Machines"]


@pytest.mark.parametrize(("files", "why"), [
    (["unknown.json"], "unknown.json: no owner publishes a file of this name"),
    (["ips-v4"], "Two files publishes its networks in ips-v6, too"),
    (["same-name"], "same-name: may be of Another or Other; say whose it is with --name OWNER")])
def test_files_that_cannot_be_placed_are_one_line(files, why):
    with pytest.raises(ListError) as refused:
        sections_of(KNOWN, files)
    assert str(refused.value).startswith(why) and "\n" not in str(refused.value)


def rows(files: dict[str, Published], *, fewer: bool = False, shared: Shared = KNOWN) -> dict[str, list[str]]:
    updated = renew(shared, sections_of(shared, files), files, TODAY, named=False, fewer=fewer)
    assert all(one.before is not None and one.section.date == date(2026, 6, 1) for one in updated)
    return {one.section.name: [network_of(row) for row in one.section.rows] for one in updated}


def test_each_section_takes_what_is_its_own_and_merged():
    both = Published(date(2026, 6, 1), published("8.8.8.0/25", "8.8.8.128/25", "8.8.9.1", service="STORE").networks
                     + published("11.0.0.0/17", "11.0.128.0/17", "12.0.0.0/24", service="VM").networks
                     + published("13.0.0.0/16", service="ELSE").networks)
    assert rows({"ranges.json": both}) == {"Store": ["8.8.8.0/24", "8.8.9.1"], "Machines": ["11.0.0.0/16"]}


def test_what_is_of_machines_is_not_of_the_front_ends():
    front = published("9.9.9.0/24", "11.0.0.0/15", "14.0.0.0/24")
    assert rows({"front.json": front}) == {"Front": ["9.9.9.0/24", "14.0.0.0/24"]}
    machines = published("14.0.0.0/16", service="VM")
    machines.networks.extend(published("8.8.8.0/24", service="STORE").networks)
    assert rows({"front.json": front, "ranges.json": machines})["Front"] == ["9.9.9.0/24", "11.0.0.0/15"]


@pytest.mark.parametrize(("files", "why"), [
    ({"ranges.json": published("8.8.8.0/24", service="ELSE")}, "Store: no network is marked STORE there"),
    ({"front.json": published("11.0.0.0/17")}, "Front: 0 networks where there were 1"),
    ({"front.json": published("9.9.9.0/24", day=date(2026, 12, 24))}, "Front: 2026-12-24 is in the future"),
    ({"front.json": published("9.9.9.0/24", day=date(2025, 12, 24))}, "Front: 2025-12-24 is before 2026-01-01")])
def test_what_cannot_be_is_one_line(files, why):
    with pytest.raises(ListError) as refused:
        rows(files)
    assert str(refused.value).startswith(why) and "\n" not in str(refused.value)


def test_a_file_that_may_be_cut_off_needs_a_word():
    many = KNOWN.joined(parse_shared(b"[Front]\nkind = x\nsource = y\ndate = 2026-01-01\nfiles = front.json\n"
                                     + b"".join(b"9.9.%d.0\n" % number for number in range(10)), "many"))
    short = {"front.json": published("9.9.9.0/24", "9.9.11.0/24", "9.9.13.0/24", "9.9.15.0/24")}
    with pytest.raises(ListError, match="Front: 4 networks where there were 10: the file may be cut off; .* --fewer"):
        rows(short, shared=many)
    assert len(rows(short, fewer=True, shared=many)["Front"]) == 4


def test_every_shipped_section_can_be_told_by_its_files():
    shipped = shipped_shared()
    told = {section.name for section in shipped.sections if section.files}
    assert {"Cloudflare", "Amazon CloudFront", "Microsoft Azure Front Door", "GitHub", "Google Cloud"} <= told
    assert {section.name for section in sections_of(shipped, ["ip-ranges.json"])} == {
        section.name for section in shipped.sections if "amazonaws" in section.source}
    assert NOTHING.sections == ()
