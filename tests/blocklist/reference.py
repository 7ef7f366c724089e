"""A second opinion on matching: sets, strings and loops, straight from DESIGN 3.1, with no snapshot in sight.

In: the lists as (settings, lines). Out: the rule in force for one name. It shares only the canonical form with the
real matcher, which has second opinions of its own.
"""

import io
import ipaddress
from dataclasses import dataclass, field

from edgeblock.blocklist.canonical import host_address, link_target, wire_hosts
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, network_text, read_domains
from edgeblock.blocklist.settings import ListSettings
from tests.reference.targets import target_forms


@dataclass
class ReferenceMatcher:
    lists: list[tuple[str, ListSettings, list[Entry]]] = field(default_factory=list)

    def add(self, name, settings, lines):
        entries = [entry for entry in read_domains(io.BytesIO("\n".join(lines).encode())) if isinstance(entry, Entry)]
        self.lists.append((name, settings, entries))
        return entries

    def look_up(self, proto, host, target, to=None):
        """(action, list) in force, or None; `to` is the ip_address that it leads to."""
        names = [(name, target) for name in wire_hosts(host)]
        if proto == "http" and target is not None and (link := link_target(target)):
            names += [(name, link[1]) for name in wire_hosts(link[0])]
        found = [best for name, target in names if (best := self.look_up_name(proto, name, target, to))]
        # Of several readings the one that is blocked counts, then what precedence says.
        strength = {"accept": 0, "observe": 1}
        return max(found, key=lambda best: (strength.get(best[1][0], 2), best[0]))[1] if found else None

    def look_up_name(self, proto, name, target, to):
        """(rank, (action, list)) of one reading, or None."""
        visible = proto == "http" and target is not None
        urls = target_forms(target) if visible else set()
        best = None
        for index, (_, settings, entries) in enumerate(self.lists):
            for entry in entries:
                score = self.specific(entry, settings, proto, name, urls, to)
                if score is None:
                    continue
                block = 1 if settings.action == "observe" else 4 if settings.mandatory else 2
                rank = 3 if entry.exception else block
                candidate = (rank, *score, -index)
                if best is None or candidate > best[0]:
                    best = candidate, ("accept" if entry.exception else settings.action, self.lists[index][0])
        return best

    @staticmethod
    def specific(entry, settings, proto, name, urls, to):
        """How specific an entry that applies is; None for one that does not apply."""
        key = entry.key
        if entry.kind >= Kind.HOST_AT:
            key, zero, place = key.partition(b"\0")
            if to is None or to not in ipaddress.ip_network(network_text(zero + place)):
                return None
            entry = entry._replace(kind=Kind(entry.kind - Kind.HOST_AT + Kind.HOST), key=key)
            plain = ReferenceMatcher.specific(entry, settings, proto, name, urls, to)
            return plain and (plain[0], plain[1] + 1)
        if entry.kind in (Kind.HOST, Kind.HOST_ONLY, Kind.SUBDOMAINS):
            if host_address(name):
                return None
            same, below = name == key, name.endswith(b"." + key)
            if entry.kind == Kind.HOST_ONLY:
                return (3, len(key)) if same else None
            if entry.kind == Kind.SUBDOMAINS:
                return (2, len(key)) if below else None
            return (2, len(key)) if same or below else None
        if entry.kind not in (Kind.URL_WITH_QUERY, Kind.URL, Kind.DIRECTORY):
            return None
        host = key.partition(b"/")[0]
        if host != name:
            return None
        if proto in ("tls", "quic"):
            return (3, len(host)) if settings.https == "host" and not entry.exception and not host_address(
                host) else None
        scores = []
        for url in urls:
            whole = name + url
            bare = whole.partition(b"?")[0]
            if entry.kind == Kind.URL_WITH_QUERY and whole == key:
                scores.append((6, len(key)))
            if entry.kind == Kind.URL and bare == key:
                scores.append((5, len(key)))
            if entry.kind == Kind.DIRECTORY and (bare == key or bare.startswith(key.rstrip(b"/") + b"/")):
                scores.append((4, len(key)))
        return max(scores, default=None)
