"""Mistakes of public record, and their kind: addresses and names that no list may take down, each with its owner.

In: the data that ships, and entries as orders and feeds had them. Out: each is refused with whose it is, unless the
list may; what stands beside it is taken.
"""

import io
import re
import tomllib

import pytest

from edgeblock.blocklist.directory import find_lists
from edgeblock.blocklist.formats import read_domains
from edgeblock.blocklist.guard import Guard, shipped_protected
from edgeblock.blocklist.intake import make_terms, take
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.settings import ListSettings, default_settings, read_allowance
from edgeblock.config import Rules

SHIPPED = shipped_protected()
ADVICE = re.compile(r"; if that is meant, put (\w+) = (.+) into the settings of this list$")


def refusals(entry: str, **settings: object) -> list[str]:
    guard = Guard(ListSettings(**settings), SHIPPED)
    return [why for one in read_domains(io.BytesIO(f"{entry}\n".encode())) if (why := guard.refuses(one))]


ADDRESSES = [
    # Football orders: shared addresses of delivery networks and of site hosters, by the round and by the hundred
    ("188.114.96.5", "Cloudflare"), ("188.114.97.7", "Cloudflare"), ("104.21.32.1", "Cloudflare"),
    ("172.67.133.7", "Cloudflare"), ("104.16.0.0/20", "Cloudflare"), ("2606:4700:3030::6815:1001", "Cloudflare"),
    ("162.159.140.1:443", "Cloudflare"), ("76.76.21.142", "Vercel"), ("66.33.60.129", "Vercel"),
    ("5.189.202.62", "Bunny"), ("92.223.116.241", "Gcore"),
    # Package and update services behind a delivery network
    ("151.101.0.223", "Fastly"), ("151.101.130.132", "Fastly"), ("146.75.118.132", "Fastly"),
    ("2a04:4e42::644", "Fastly"), ("23.192.228.80", "Akamai"), ("2.16.10.1", "Akamai"),
    ("2a02:26f0:3400::5f65:1", "Akamai"), ("199.83.128.7", "Imperva"),
    # Prefixes of a cloud's front ends, as when a messenger was hunted through them
    ("64.233.164.0/24", "Google"), ("142.250.185.78", "Google"), ("216.58.208.0/20", "Google"),
    ("2a00:1450:4001::200e", "Google"), ("13.32.99.12", "Amazon CloudFront"), ("3.5.140.2", "Amazon S3"),
    ("205.251.192.27", "Amazon Route 53"), ("13.107.246.45", "Microsoft Azure Front Door"),
    ("20.190.159.4", "Microsoft Entra ID"), ("52.96.0.0/20", "Microsoft 365"), ("17.253.144.10", "Apple"),
    ("140.82.121.4", "GitHub"), ("185.199.108.153", "GitHub"), ("2606:50c0:8000::153", "GitHub"),
    ("208.80.154.224", "Wikimedia"), ("91.198.174.192", "Wikimedia"),
    # Resolvers and name servers: anycast, one address for the world
    ("8.8.8.8", "Google"), ("1.1.1.1", "Cloudflare"), ("1.1.1.0/24", "Cloudflare"), ("1.1.1.3", "Cloudflare DNS"),
    ("9.9.9.9", "Quad9"), ("9.9.9.11", "Quad9 DNS"), ("208.67.222.123", "Cisco OpenDNS"),
    ("94.140.14.14", "AdGuard DNS"), ("2620:fe::fe", "Quad9"), ("2620:fe::11", "Quad9 DNS"),
    ("77.88.8.8", "Yandex DNS"), ("223.5.5.5", "Ali DNS"), ("198.41.0.4", "Verisign: root name server a"),
    ("193.0.14.129", "RIPE NCC: root name server k"), ("2001:503:ba3e::2:30", "Verisign: root name server a"),
    ("192.5.6.30", "a.gtld-servers.net"), ("194.0.0.53", "a.nic.de"), ("194.0.9.1", "d.nic.fr"),
    ("213.248.216.1", "dns1.nic.uk"),
    # The same behind a translator
    ("64:ff9b::808:808", "Google"), ("64:ff9b::6815:2001", "Cloudflare"),
]

CLOUDS = [      # wide prefixes of clouds, with the widths allowed; one machine there is no stranger's
    ("52.56.0.0/16", "Amazon"), ("18.184.0.0/15", "Amazon Web Services"),
    ("8.34.208.0/22", "Google Cloud"), ("20.40.0.0/20", "Microsoft Azure"),
    ("2001:3fc1:8000::/36", "Amazon Web Services"), ("129.144.0.0/23", "Oracle Cloud"),
    ("104.131.0.0/20", "DigitalOcean"), ("45.79.32.0/21", "Linode"),
]

NAMES = [
    ("cloudflare-ech.com", "Cloudflare: outer name"), ("drive.usercontent.google.com", "Google: files"),
    ("storage.googleapis.com", "Google Cloud Storage"), ("googleusercontent.com", "Google: files"),
    ("=s3.amazonaws.com", "Amazon S3: files"), ("blob.core.windows.net", "Azure Storage: files"),
    ("dl.dropboxusercontent.com", "Dropbox"), ("onedrive.live.com", "Microsoft: files"),
    ("raw.githubusercontent.com", "GitHub: files"), ("github.com", "GitHub"), ("ghcr.io", "GitHub: containers"),
    ("quay.io", "Red Hat: containers"), ("registry-1.docker.io", "Docker Hub: containers"),
    ("docker.io", "Docker Hub"), ("mcr.microsoft.com", "Microsoft: containers"), ("gcr.io", "containers"),
    ("files.pythonhosted.org", "PyPI: packages"), ("registry.npmjs.org", "npm: packages"),
    ("static.crates.io", "Rust: packages"), ("deb.debian.org", "Debian: packages"),
    ("archive.ubuntu.com", "Ubuntu: packages"), ("ocsp.digicert.com", "DigiCert"),
    ("r10.o.lencr.org", "Let's Encrypt"), ("c.pki.goog", "Google Trust Services"), ("crl.usertrust.com", "Sectigo"),
    ("timestamp.digicert.com", "DigiCert"),
    ("captive.apple.com", "Apple: connectivity check"), ("www.msftconnecttest.com", "Microsoft: connectivity check"),
    ("connectivitycheck.gstatic.com", "Google: connectivity check"), ("time.apple.com", "Apple: time"),
    ("2.pool.ntp.org", "NTP Pool"), ("download.windowsupdate.com", "Microsoft: updates"),
    ("dns.google", "Google: resolver"), ("mozilla.cloudflare-dns.com", "Cloudflare: resolver"),
    ("dns.quad9.net", "Quad9: resolver"), ("login.microsoftonline.com", "Microsoft: sign-in"),
    ("accounts.google.com", "Google: sign-in"), ("js.stripe.com", "Stripe: payment"),
    ("cdn.jsdelivr.net", "jsDelivr"), ("cdnjs.cloudflare.com", "Cloudflare: scripts"),
    ("cloudfront.net", "CloudFront"), ("http://ocsp.sectigo.com/", "Sectigo"), ("https://github.com/*", "GitHub"),
    ("en.wikipedia.org", "*.wikipedia.org"), ("fonts.googleapis.com", "Google: fonts"),
]


@pytest.mark.parametrize(("entry", "owner"), ADDRESSES + CLOUDS + NAMES)
def test_it_is_refused_with_its_owner_and_the_override_works(entry, owner):
    settings = {"widest_ipv4": 0, "widest_ipv6": 0}
    taken = 0
    while told := refusals(entry, **settings):
        [why] = told
        assert "\n" not in why and len(why) < 400
        assert taken or owner in why, why
        key, value = ADVICE.search(why).groups()
        allowed = read_allowance(tuple(tomllib.loads(f"{key} = {value}")[key]), key)
        assert allowed != settings.get(key), why
        settings[key] = allowed
        taken += 1
    assert taken >= 1, f"{entry} is taken"
    everything = dict.fromkeys(("allow_shared", "allow_protected", "allow_public_suffixes"), True)
    assert refusals(entry, widest_ipv4=0, widest_ipv6=0, **everything) == []
    assert refusals(f"@@{entry}", widest_ipv4=0, widest_ipv6=0, allow_public_suffixes=True) == []    # only unblocks


def test_there_are_enough():
    assert len(ADDRESSES) >= 50 and len(NAMES) >= 40 and len({entry for entry, _ in ADDRESSES + NAMES}) >= 95


@pytest.mark.parametrize("entry", [
    "104.15.255.255", "104.28.0.0", "188.114.95.255", "188.114.112.0", "1.1.2.1", "1.0.1.1", "8.8.9.8", "9.9.10.9",
    "151.100.255.255", "151.102.0.0", "76.76.20.21", "76.76.22.21", "140.82.128.1", "185.199.107.1", "185.199.112.0",
    "2606:4701::1", "2a04:4e41::1", "192.5.6.31", "198.41.0.5", "94.140.14.17", "16.255.255.255", "18.0.0.0",
    "208.80.156.0", "91.198.175.1", "64:ff9b::5001:203", "52.56.7.8", "52.56.7.0/24", "18.184.1.1", "34.64.1.2",
    "20.40.1.2", "104.131.7.0/24", "45.79.33.1", "2600:1900:4000:1::/64", "1.1.1.1.example", "dl.listed.example",
    "shop.listed-at.test", "http://raw.githubusercontent.com/user/repo/listed", "https://github.com/user/listed/*",
    "mine.s3.amazonaws.com", "listed.blob.core.windows.net", "listed.github.io", "listed.pages.dev",
    "listed.cloudfront.net", "listed.myshopify.com", "listed.web.app"])
def test_what_stands_beside_it_is_taken(entry):
    assert refusals(entry) == []


def test_an_operators_lists_are_refused_or_taken_without_them(tmp_path):
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "order.list").write_text("203.0.114.7\n188.114.97.7\nghcr.io\nlisted.example\n9.9.9.9\n")
    assert [finding.line for finding in lint(rules).errors] == [2, 3, 5]
    (rules / "order.toml").write_text('guarded = "skip"\n')
    report = lint(rules)
    assert report.errors == [] and report.entries == 2
    assert [finding.why.endswith("left out (guarded = \"skip\")") for finding in report.warnings] == [True] * 3
    settings = Rules(directory=rules)
    terms = make_terms(settings, bytes(16))
    [source] = find_lists(rules, default_settings(settings))[0]
    left_out: list = []
    compiled = take(source, terms, None, 0.0, left_out=left_out)
    assert compiled.lists[0].entries == 2 and compiled.lists[0].guarded == 3
    assert "188.114.97.7 is in a network that many share, 188.114.96.0/20 of Cloudflare (delivery network, as of " \
        in left_out[0].why and "ghcr.io' is protected (GitHub: containers)" in left_out[1].why
    (rules / "order.toml").write_text('allow_shared = ["188.114.97.0/24"]\n'
                                      'allow_protected = ["ghcr.io", "9.9.9.9"]\n')
    assert lint(rules).errors == []


def test_what_the_operator_knows_stands_in_place_of_what_ships(tmp_path):
    (tmp_path / "own.networks").write_text(
        "[Cloudflare]\nkind = delivery network\nsource = us\ndate = 2026-11-01\n203.0.114.0/24\n\n"
        "[Our caches]\nkind = caches\nsource = us\ndate = 2026-11-01\n203.0.115.0/24 Cache of the town\n")
    protected = make_terms(Rules(shared=tmp_path / "own.networks"), bytes(16)).protected
    guard = Guard(ListSettings(), protected)

    def told(text: str) -> str | None:
        [entry] = read_domains(io.BytesIO(text.encode()))
        return guard.refuses(entry)

    assert told("188.114.97.7") is None and "Cloudflare" in told("203.0.114.9")
    assert "Cache of the town (caches, as of 2026-11-01)" in told("203.0.115.1") and "Fastly" in told("151.101.0.1")
