"""`replay` from file to file: real rules, the real engine, captures that scapy wrote, and scapy reading what left."""

import io
import json
import random
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import (
    ARP,
    IP,
    PPP,
    TCP,
    UDP,
    CookedLinux,
    Dot1Q,
    Ether,
    IPv6,
    IPv6ExtHdrFragment,
    PcapNgWriter,
    PPPoE,
    Raw,
    fragment6,
    rdpcap,
    wrpcap,
)
from scapy.layers.tls.all import TLS, ServerName, TLS_Ext_ServerName, TLSClientHello

from edgeblock.commands import replay
from edgeblock.config import Config, Policies, Reply
from edgeblock.core.decision import Decision, Name
from edgeblock.errors import CaptureError, ConfigError, EdgeblockError, ListError
from edgeblock.source.capture import Capture, CaptureWriter
from tests.core import samples

KEYS = ["frame", "time", "proto", "src", "sport", "dst", "dport", "host", "path", "verdict", "list", "rule"]
CLIENT, SERVER = "10.0.0.2", "203.0.113.7"
CLIENT6, SERVER6 = "fd00::2", "2001:db8::7"
GET = b"GET /bad HTTP/1.1\r\nHost: listed.example\r\n\r\n"


def hello(name):
    return bytes(TLS(msg=[TLSClientHello(ext=[TLS_Ext_ServerName(
        servernames=[ServerName(servername=name.encode())])])]))


def flow(payload, port=80, sport=50123, six=False, answer=b"HTTP/1.1 200 OK\r\n\r\n", finish=True):
    """The IP packets of a short connection whose client sends `payload`."""
    there = IPv6(src=CLIENT6, dst=SERVER6) if six else IP(src=CLIENT, dst=SERVER)
    back = IPv6(src=SERVER6, dst=CLIENT6) if six else IP(src=SERVER, dst=CLIENT)
    up, down = {"sport": sport, "dport": port}, {"sport": port, "dport": sport}
    end = 1001 + len(payload)
    packets = [there / TCP(flags="S", seq=1000, **up), back / TCP(flags="SA", seq=2000, ack=1001, **down),
               there / TCP(flags="A", seq=1001, ack=2001, **up),
               there / TCP(flags="PA", seq=1001, ack=2001, **up) / Raw(payload)]
    if finish:
        packets += [back / TCP(flags="PA", seq=2001, ack=end, **down) / Raw(answer),
                    there / TCP(flags="A", seq=end, ack=2001 + len(answer), **up)]
    return packets


def ether(packet):
    down = (packet[IP].src if IP in packet else packet[IPv6].src) in (SERVER, SERVER6)
    ends = ("02:00:00:00:00:02", "02:00:00:00:00:01")
    return Ether(src=ends[down], dst=ends[not down]) / packet


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


class Bench:
    """A folder with rules and captures, and a way to replay one."""

    def __init__(self, path):
        self.path = path
        self.rules = path / "rules"
        self.rules.mkdir()
        (self.rules / "court.list").write_text("listed.example\n")
        (self.rules / "pages.list").write_text("page.example\n")
        (self.rules / "pages.toml").write_text('action = "page"\n')

    def save(self, packets, name="in.pcap", start=1700000000.123456):
        for number, packet in enumerate(packets):
            packet.time = start + number / 1000
        path = self.path / name
        wrpcap(str(path), packets)
        return path

    def run(self, capture, json_output=True, **options):
        """Exit status, what it printed (rows if JSON) and its summary."""
        out, err = io.StringIO(), io.StringIO()
        status = replay.run(capture, self.rules, json_output=json_output, out=out, err=err, **options)
        printed = out.getvalue()
        return status, [json.loads(line) for line in printed.splitlines()] if json_output else printed, err.getvalue()

    def rows(self, packets, **options):
        return self.run(self.save(packets), **options)[1]


# -- what it prints ----------------------------------------------------------------------------------------------

def test_one_object_a_name(bench):
    packets = ([ether(packet) for packet in flow(GET)] +
               [ether(packet) for packet in flow(hello("fine.example"), 443, six=True)])
    capture = bench.save(packets)
    status, rows, summary = bench.run(capture)
    assert status == 0 and [list(row) for row in rows] == [KEYS, KEYS]
    assert rows[0] == {"frame": 4, "time": 1700000000.126456, "proto": "http", "src": CLIENT, "sport": 50123,
                       "dst": SERVER, "dport": 80, "host": "listed.example", "path": "/bad", "verdict": "reset",
                       "list": "court", "rule": rows[0]["rule"]}
    assert int(rows[0]["rule"], 16) >= 0 and len(rows[0]["rule"]) == 8
    assert rows[1] == {**rows[0], "frame": 10, "time": 1700000000.132456, "proto": "tls", "src": CLIENT6,
                       "dst": SERVER6, "dport": 443, "host": "fine.example", "path": None, "verdict": "accept",
                       "list": None, "rule": None}
    assert f"{capture}: 12 frames: 12 packets judged" in summary
    assert "names: 2 (1 accept, 1 reset); blocked: 1;" in summary


@pytest.mark.parametrize("action", ["page", "redirect"])
@pytest.mark.parametrize("six", [False, True])
def test_the_verdict_is_what_is_done(bench, action, six):
    """No page can be shown for an address or in TLS, and a redirect that has no URL is the page."""
    (bench.rules / "pages.list").write_text(f"{SERVER6 if six else SERVER}\npage.example\n")
    (bench.rules / "pages.toml").write_text(f'action = "{action}"\n')
    get = GET.replace(b"listed", b"page")

    def verdicts(packets, **options):
        _, rows, summary = bench.run(bench.save(packets), **options)
        assert f"({len(rows)} {rows[0]['verdict']})" in summary
        return {(row["proto"], row["verdict"]) for row in rows}, summary

    assert verdicts(flow(hello("fine.example"), 22, six=six)[:1])[0] == {("ip", "reset")}
    (bench.rules / "pages.list").write_text("page.example\n")
    assert verdicts(flow(hello("page.example"), 443, six=six))[0] == {("tls", "reset")}
    said, summary = verdicts(flow(get, six=six))
    assert said == {("http", "page")}
    assert ('pages.toml: action = "redirect" needs a URL' in summary) == (action == "redirect")
    there = Config(reply=Reply(redirect="http://where.example/"))
    assert verdicts(flow(get, six=six), config=there) == ({("http", action)}, verdicts(flow(get), config=there)[1])


def test_the_time_always_has_its_microseconds(bench):
    out = io.StringIO()
    replay.run(bench.save([ether(packet) for packet in flow(GET)], start=1699999999.997), bench.rules,
               json_output=True, out=out, err=io.StringIO())
    assert out.getvalue().startswith('{"frame": 4, "time": 1700000000.000000, "proto": "http", "src": ')


def test_lines_for_people(bench):
    status, printed, _ = bench.run(bench.save([ether(packet) for packet in flow(GET)]), json_output=False)
    assert status == 0 and len(printed.splitlines()) == 2
    line = printed.splitlines()[1]
    for word in ("4", "1700000000.126456", "http", "reset", f"{CLIENT}:50123 > {SERVER}:80", "listed.example /bad",
                 "[court "):
        assert word in line
    assert bench.run(bench.save([ether(IP() / UDP())]), json_output=False)[1] == ""


class Named:
    """Finds one name in every packet: what a hostile peer could put into it, were a parser to let it."""

    def judge(self, packet, now, flags=0):
        path = "/\x1b]0;owned\x07\x9b\u202e\udc9b\n"
        return Decision(accept=True, names=(Name("http", "x\x1b[2J.example", path, "accept", "a\rb", "00000001"),))

    def counters(self):
        return {}


@pytest.mark.parametrize("json_output", [False, True])
def test_no_capture_writes_control_characters_to_a_terminal(bench, json_output):
    out = io.StringIO()
    replay.run(bench.save([ether(IP() / TCP())]), bench.rules, json_output=json_output, out=out, err=io.StringIO(),
               engine=Named())
    assert "owned" in out.getvalue() and out.getvalue().count("\n") == (1 if json_output else 2)
    assert all(char == "\n" or char.isprintable() for char in out.getvalue())
    out.getvalue().encode("ascii" if json_output else "utf-8")


def test_frames_that_carry_nothing_are_counted(bench):
    broken = bytes(IP(src=CLIENT, dst=SERVER) / UDP())
    frames = [Ether() / ARP(), Ether(type=0x0800) / Raw(b"\x45" + bytes(9)), Ether(type=0x0800) / Raw(broken[:19]),
              Ether(type=0x88CC) / Raw(b"x" * 46), ether(IP(src=CLIENT, dst=SERVER) / UDP())]
    assert "5 frames: 1 packets judged, 2 not IP, 2 unreadable, 0 fragments" in bench.run(bench.save(frames))[2]


# -- fragments and checksums -------------------------------------------------------------------------------------

@pytest.mark.parametrize("six", [False, True])
def test_a_name_in_fragments_counts_at_the_frame_that_completes_it(bench, six):
    packets = flow(GET + b"x" * 300, six=six, finish=False)
    if six:
        packets[3:] = fragment6(IPv6(src=CLIENT6, dst=SERVER6) / IPv6ExtHdrFragment(id=9) / packets[3][TCP], 120)
    else:
        packets[3:] = packets[3].fragment(64)
    assert len(packets) > 6
    random.Random(1).shuffle(tail := packets[3:])
    capture = bench.save([ether(packet) for packet in packets[:3] + tail])
    _, rows, summary = bench.run(capture)
    assert [(row["frame"], row["host"]) for row in rows] == [(len(packets), "listed.example")]
    assert f"{len(tail)} fragments" in summary and "1 packets put together" in summary
    # Blocked, none of them leaves; accepted, all of them do, as they came.
    out = bench.path / "out.pcap"
    bench.run(capture, write=out)
    assert not any(IPv6ExtHdrFragment in packet or (IP in packet and packet[IP].flags.MF)
                   for packet in rdpcap(str(out)))
    (bench.rules / "court.list").write_text("other.example\n")
    bench.run(capture, write=out)
    assert out.read_bytes() == capture.read_bytes().replace(b"\xff\xff\0\0\1\0\0\0", b"\0\0\4\0\1\0\0\0", 1)


def decoy(name, **fields):
    packets = flow(hello("fine.example"), 443, finish=False)
    fake = packets[3].copy()
    fake[TCP].remove_payload()
    fake = fake / Raw(hello(name))
    fake[TCP].chksum = fields["chksum"]
    return [ether(packet) for packet in [*packets[:3], fake, packets[3]]]


def test_a_decoy_with_a_wrong_checksum_is_junk_unless_told_otherwise(bench):
    packets = decoy("listed.example", chksum=0xBEEF)
    for mode in ("auto", "verify"):
        assert [row["host"] for row in bench.rows(packets, checksums=mode)] == ["fine.example"]
    assert "listed.example" in [row["host"] for row in bench.rows(packets, checksums="ignore")]


@pytest.mark.parametrize("value", [0, 0xBEEF])
def test_a_capture_from_the_sending_host_is_read_all_the_same(bench, value):
    packets = flow(GET)
    for packet in packets:
        if packet[IP].src == CLIENT:
            packet[TCP].chksum = value
    status, rows, summary = bench.run(bench.save([ether(packet) for packet in packets]))
    assert [row["host"] for row in rows] == ["listed.example"]
    assert "checksums: 1 sources left them to hardware" in summary
    assert bench.rows([ether(packet) for packet in packets], checksums="verify") == []


# -- --write -----------------------------------------------------------------------------------------------------

FRAMINGS = {
    "ethernet": ether,
    "vlan": lambda packet: Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / Dot1Q(vlan=5) / packet,
    "pppoe": lambda packet: (Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / PPPoE(sessionid=3) /
                             PPP(proto=0x21) / packet),
    "cooked": lambda packet: CookedLinux(proto=0x0800) / packet,
    "raw": lambda packet: packet,
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_write_saves_what_would_have_left(bench, framing):
    packets = [FRAMINGS[framing](packet) for packet in flow(GET.replace(b"listed", b"page"))]
    capture, out = bench.save(packets), bench.path / "out.pcap"
    config = Config(reply=Reply(provider="An ISP"))
    assert bench.run(capture, write=out, config=config)[0] == 0
    left = rdpcap(str(out))
    assert [bytes(packet) for packet in left[:3]] == [bytes(packet) for packet in rdpcap(str(capture))[:3]]
    to_client = [packet for packet in left[3:] if packet[IP].dst == CLIENT]
    to_server = [packet for packet in left[3:] if packet[IP].dst == SERVER]
    page = b"".join(bytes(packet[TCP].payload) for packet in to_client)
    assert page.startswith(b"HTTP/1.1 451 ") and page.endswith(b"</html>\n") and b"An ISP" in page
    assert to_client[-1][TCP].flags.F and [packet[TCP].flags for packet in to_server] == ["RA"]
    assert len(left) == 3 + len(to_client) + 1, "nothing of the blocked flow leaves after that, either way"
    assert all(type(packet) is type(left[0]) for packet in left)
    if framing == "ethernet":
        assert {packet.src for packet in to_client} == {"02:00:00:00:00:01"}
        assert {packet.src for packet in to_server} == {"02:00:00:00:00:02"}
    for packet in left:
        again = IP(bytes(packet[IP]))
        del again.chksum, again[TCP].chksum
        assert IP(bytes(again)) == IP(bytes(packet[IP])), "checksums as scapy makes them"


def test_a_new_connection_with_the_same_ports_is_let_through_again(bench):
    packets = flow(GET)
    later = flow(GET.replace(b"listed", b"fine"))
    for packet in later:
        packet[TCP].seq += 100000 if packet[IP].src == CLIENT else 0
        packet[TCP].ack += 100000 if packet[IP].src == SERVER else 0
    capture = bench.path / "in.pcap"
    bench.save([ether(packet) for packet in packets])
    with Capture(capture) as source:
        records = list(source)
    with CaptureWriter(capture) as writer:
        for record in records:
            writer.write(record.time, 1, record.frame)
        for number, packet in enumerate(later):
            writer.write(records[-1].time + 1000 + number, 1, bytes(ether(packet)))
    bench.run(capture, write=bench.path / "out.pcap")
    left = rdpcap(str(bench.path / "out.pcap"))
    assert [bytes(packet) for packet in left[-len(later):]] == [bytes(ether(packet)) for packet in later]


def test_write_keeps_what_is_not_ours_and_the_kind_of_file(bench):
    capture, out = bench.path / "in.pcapng", bench.path / "out.pcapng"
    frames = [ether(IP(src=CLIENT, dst=SERVER) / UDP() / Raw(b"x")), Ether() / ARP()]
    with PcapNgWriter(str(capture)) as writer:
        writer.write(frames)
    bench.run(capture, write=out)
    with Capture(out) as source:
        assert source.pcapng and [record.frame for record in source] == [bytes(frame) for frame in frames]


def test_write_does_not_overwrite_the_capture(bench):
    capture = bench.save([ether(packet) for packet in flow(GET)])
    before = capture.read_bytes()
    (bench.path / "link").symlink_to(capture)
    for write in (capture, bench.path / "link"):
        with pytest.raises(CaptureError, match="is the capture itself"):
            bench.run(capture, write=write)
    assert capture.read_bytes() == before


# -- --expect ----------------------------------------------------------------------------------------------------

def expected(bench, rows):
    path = bench.path / "expected.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_expect(bench):
    capture = bench.save([ether(packet) for packet in flow(GET) + flow(hello("fine.example"), 443, sport=50124)])
    rows = bench.run(capture)[1]
    same = expected(bench, rows)
    assert bench.run(capture, expect=same)[0] == 0
    status, printed, summary = bench.run(capture, expect=same, json_output=False)
    assert (status, printed) == (0, "") and f"{same}: names as expected: 2\n" in summary
    assert bench.run(capture, expect=expected(bench, [dict(reversed(row.items())) for row in rows]))[0] == 0
    changed = expected(bench, [{**rows[0], "verdict": "accept"}, rows[1]])
    status, printed, summary = bench.run(capture, expect=changed, json_output=False)
    assert f"{changed}: names expected and not seen (-): 1; not expected (+): 1\n" in summary
    assert status == 1 and [line[0] for line in printed.splitlines()] == ["-", "+"]
    status, again, summary = bench.run(capture, expect=changed)
    assert (status, again) == (1, rows) and '- {"frame": 4' in summary and '"verdict": "accept"' in summary
    assert bench.run(capture, expect=expected(bench, rows[:1]), json_output=False)[1].startswith('+ {"frame": 10')
    status, printed, summary = bench.run(capture, expect=expected(bench, rows[::-1]), json_output=False)
    assert (status, printed) == (1, "") and "names as expected, in another order: 2\n" in summary
    many = expected(bench, [rows[0]] * 50 + [rows[1]])
    assert bench.run(capture, expect=many, json_output=False)[1].splitlines()[-1] == "- ... and 29 more"


@pytest.mark.parametrize(("content", "words"), [
    (b"[1]\n", ":1: not a JSON object"), (b'{"frame": 1}\nx\n', ":2: not a JSON object"),
    (b"[" * 100000, ":1: not a JSON object"), (b"\xff\xfe", "not UTF-8"), (None, "cannot be read: No such file"),
])
def test_an_expected_output_that_cannot_be_used(bench, content, words):
    path = bench.path / "expected.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EdgeblockError, match=words) as caught:
        bench.run(bench.save([ether(packet) for packet in flow(GET)]), expect=path)
    assert "\n" not in str(caught.value)


# -- what cannot be read -----------------------------------------------------------------------------------------

def test_captures_and_rules_that_cannot_be_used(bench):
    text = bench.path / "x.txt"
    text.write_text("this is no capture\n" * 10)
    with pytest.raises(CaptureError, match=r"x\.txt: not a pcap or pcapng capture"):
        bench.run(text)
    capture = bench.save([ether(packet) for packet in flow(GET)])
    with pytest.raises(CaptureError, match="No such file"):
        bench.run(bench.path / "none.pcap")
    with pytest.raises(CaptureError, match="cannot be written"):
        bench.run(capture, write=bench.path / "none" / "out")
    with pytest.raises(ListError):
        replay.run(capture, bench.path / "none", out=io.StringIO(), err=io.StringIO())
    with pytest.raises(ConfigError):
        bench.run(capture, config=Config(reply=Reply(status=302)))
    with pytest.raises(ConfigError, match="checksums"):
        bench.run(capture, checksums="maybe")


def test_the_whole_part_of_a_cut_capture_is_judged(bench):
    capture = bench.save([ether(packet) for packet in flow(GET)])
    capture.write_bytes(capture.read_bytes()[:-5])
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(CaptureError, match="cut in the middle after frame 5; what stands before") as caught:
        replay.run(capture, bench.rules, json_output=True, out=out, err=err)
    assert "\n" not in str(caught.value)
    assert json.loads(out.getvalue())["host"] == "listed.example" and "5 frames" in err.getvalue()


# -- any engine, any file ----------------------------------------------------------------------------------------

class Scripted:
    """Blocks every packet with a payload, as an engine that lost its mind would; nothing else about it is odd."""

    def judge(self, packet, now, flags=0):
        return Decision(accept=False, mark="blocked", action="page", proto="http", reply=True, reset_seqs=(1, 2))

    def counters(self):
        return {}


SAMPLES = [bytes(ether(packet)) for packet in
           [*flow(GET), *flow(GET, six=True), *(IP(src=CLIENT, dst=SERVER) / UDP() / Raw(bytes(200))).fragment(64)]]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SAMPLES), st.integers(0, 80), st.binary(max_size=5)), max_size=12),
       st.booleans(), st.sampled_from(["auto", "verify", "ignore"]))
def test_nothing_is_raised_for_any_frames(tmp_path_factory, frames, scripted, mode):
    folder = tmp_path_factory.getbasetemp()
    with CaptureWriter(folder / "in") as writer:
        for number, (frame, at, change) in enumerate(frames):
            writer.write(number, 1, frame[:at] + change + frame[at + len(change):])
    (folder / "rules").mkdir(exist_ok=True)
    status = replay.run(folder / "in", folder / "rules", write=folder / "out", checksums=mode, out=io.StringIO(),
                        err=io.StringIO(), engine=Scripted() if scripted else None)
    assert status == 0
    with Capture(folder / "out") as source:
        list(source)
    assert source.trouble is None


HALF = hello("open.example")[:40]
STOPPED = {
    "unparsable": [b"\xff" * 40], "midstream": [b"\xff" * 40], "no_sni": [samples.hello()],
    "ech": [samples.hello(b"open.example", before=samples.ECH)],
    "conflict": [bytes([byte]) for byte in range(140)],
}


@pytest.mark.parametrize("policy", STOPPED)
def test_what_a_policy_stops_has_a_row(bench, policy):
    packets = [IP(src=CLIENT, dst=SERVER) / TCP(flags="S", seq=1000, sport=5, dport=443)] * (policy != "midstream")
    packets += [IP(src=CLIENT, dst=SERVER) / TCP(flags="PA", seq=1001, ack=1, sport=5, dport=443) / Raw(data)
                for data in STOPPED[policy]]
    config = Config(policies=Policies(**{policy: "block" if policy == "ech" else "drop"}))
    packets = [ether(packet) for packet in packets]
    rows = bench.rows(packets, config=config)
    (row,) = [row for row in rows if "policy" in row]
    assert list(row) == [*KEYS, "policy"]
    assert (row["policy"], row["host"], row["path"], row["list"], row["rule"]) == (policy, None, None, None, None)
    assert row["verdict"] in ("drop", "reset") and row["dst"] == SERVER
    assert f"[policies.{policy}]" in bench.run(bench.save(packets), json_output=False, config=config)[1]


# A long capture, and one from a pipe ---------------------------------------------------------------------------

def test_standard_input_is_read_once(tmp_path):
    packets = flow(GET)
    wrpcap(str(tmp_path / "flow.pcap"), [Ether() / packet for packet in packets])
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.list").write_text("listed.example\n")
    command = [sys.executable, "-m", "edgeblock", "replay", "-", "--rules", str(tmp_path / "rules"), "--json"]
    for how in (["cat"], ["gzip", "-c"]):
        with subprocess.Popen([*how, str(tmp_path / "flow.pcap")], stdout=subprocess.PIPE) as source:
            done = subprocess.run([*command, "--checksums", "verify"], stdin=source.stdout, capture_output=True,
                                  text=True, check=False)
        assert done.returncode == 0, done.stderr
        [line] = done.stdout.splitlines()
        assert json.loads(line)["verdict"] == "reset"
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "standard input can be read once" in done.stderr and done.stdout == ""


def test_a_capture_of_any_length_takes_the_same_memory_and_says_how_far_it_is(tmp_path, monkeypatch):
    """Ten times as many connections: no more memory than the tables that are bounded, and lines about it."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.list").write_text("listed.example\n")
    packets = [bytes(Ether() / packet) for packet in flow(b"GET / HTTP/1.1\r\nHost: open.example\r\n\r\n")]
    peaks = []
    for count in (300, 3000):
        path = tmp_path / f"{count}.pcap"
        with CaptureWriter(path, False, 1) as out:
            for number in range(count):
                for packet in packets:
                    out.write(float(number), 1, packet, len(packet))
        err = io.StringIO()
        monkeypatch.setattr("edgeblock.progress.FIRST_LINE", 0.0)
        tracemalloc.start()
        assert replay.run(path, tmp_path / "rules", out=io.StringIO(), err=err, json_output=True,
                          write=tmp_path / "out.pcap") == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert f"{path}: judging: " in err.getvalue() and " % read, 2048 frames" in err.getvalue()
    assert peaks[1] < peaks[0] * 1.5 + 2_000_000, peaks
