"""Metrics for other machines: only where the configuration says so; over TLS and with a token where it names them."""

import asyncio
import datetime
import ssl
import subprocess
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeblock.config import Metrics, parse
from edgeblock.daemon import checks, door
from edgeblock.daemon.metrics import ASKING_MAX, MetricsServer
from edgeblock.errors import ConfigError

PORT = 19479
ASK = b"GET /metrics HTTP/1.1\r\nHost: x\r\n%s\r\n"
TOKEN = b"wQ0-secret"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("door")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "box.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1)).add_extension(
        x509.SubjectAlternativeName([x509.DNSName("box.test")]), False).sign(key, hashes.SHA256())
    (folder / "box.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "box.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    (folder / "locked.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")))
    for private in folder.glob("*.key"):
        private.chmod(0o640)
    (folder / "bare.key").write_bytes((folder / "box.key").read_bytes())
    (folder / "bare.key").chmod(0o644)
    (folder / "token").write_bytes(TOKEN + b"\n")
    (folder / "token").chmod(0o640)
    (folder / "open").write_bytes(TOKEN)
    (folder / "open").chmod(0o644)
    (folder / "empty").write_bytes(b"\n")
    (folder / "two").write_bytes(b"one\ntwo\n")
    return folder


def ask(settings, *questions, context=None):
    """The answers to questions, each over a connection of its own; b"" where the connection was refused."""
    async def some():
        return b"some 1\n"

    async def talk():
        server = MetricsServer(settings.listen, some, door.prepare(settings))
        await server.open()
        answers = []
        try:
            for question in questions:
                try:
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", PORT, ssl=context, server_hostname="box.test" if context else None)
                    writer.write(question)
                    answers.append(await reader.read())
                    writer.close()
                except OSError:
                    answers.append(b"")
        finally:
            await server.close()
        return answers
    return uvloop.run(talk())


def test_a_token_is_asked_for_where_one_is_set(files):
    settings = Metrics(listen=f"127.0.0.1:{PORT}", token_file=files / "token")
    heads = [b"Authorization: Bearer " + TOKEN, b"aUTHORIZATION:bearer  " + TOKEN + b" ", b"",
             b"Authorization: Bearer wQ0-secre", b"Authorization: Bearer " + TOKEN + b"x",
             b"Authorization: Basic " + TOKEN, b"X-Authorization: Bearer " + TOKEN,
             b"Cookie: a\rAuthorization: Bearer x"]
    answers = ask(settings, *(ASK % (head + b"\r\n" if head else b"") for head in heads))
    assert [answer.split()[1] for answer in answers] == [b"200", b"200"] + [b"401"] * 6
    assert b"WWW-Authenticate: Bearer\r\n" in answers[2] and b"some 1" not in b"".join(answers[2:])


def test_over_tls_nothing_is_said_in_clear(files):
    settings = Metrics(listen=f"127.0.0.1:{PORT}", certificate=files / "box.pem", certificate_key=files / "box.key")
    context = ssl.create_default_context(cafile=files / "box.pem")
    [answer] = ask(settings, ASK % b"", context=context)
    assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"some 1\n")
    [answer] = ask(settings, ASK % b"")
    assert b"HTTP" not in answer and b"some" not in answer
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    assert ask(settings, ASK % b"", context=old) == [b""]


def test_who_never_finishes_the_handshake_makes_room_for_others(files):
    settings = Metrics(listen=f"127.0.0.1:{PORT}", certificate=files / "box.pem", certificate_key=files / "box.key")
    context = ssl.create_default_context(cafile=files / "box.pem")

    async def some():
        return b"some 1\n"

    async def crowd():
        server = MetricsServer(settings.listen, some, door.prepare(settings))
        await server.open()
        try:
            silent = [await asyncio.open_connection("127.0.0.1", PORT) for _ in range(ASKING_MAX + 5)]
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT, ssl=context, server_hostname="box.test")
            writer.write(ASK % b"")
            answer = await asyncio.wait_for(reader.read(), 3)
            for _, one in silent:
                one.close()
            return answer
        finally:
            await server.close()
    assert uvloop.run(crowd()).endswith(b"some 1\n")


def test_a_real_client_is_content(files):
    settings = Metrics(listen=f"127.0.0.1:{PORT}", certificate=files / "box.pem", certificate_key=files / "box.key",
                       token_file=files / "token")

    async def some():
        return b"some 1\n" * 20_000

    async def fetch():
        server = MetricsServer(settings.listen, some, door.prepare(settings))
        await server.open()
        try:
            curl = await asyncio.create_subprocess_exec(
                "curl", "--silent", "--show-error", "--fail", "--cacert", files / "box.pem",
                "--resolve", f"box.test:{PORT}:127.0.0.1", "--oauth2-bearer", TOKEN.decode(),
                f"https://box.test:{PORT}/metrics", stdout=subprocess.PIPE)
            return (await curl.communicate())[0]
        finally:
            await server.close()
    assert uvloop.run(fetch()) == b"some 1\n" * 20_000


@pytest.mark.parametrize("listen", ["", "/run/x.sock", "127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1"])
def test_this_machine_may_always_ask(listen):
    assert door.prepare(Metrics(listen=listen)) == door.OPEN


@pytest.mark.parametrize("listen", ["0.0.0.0:9477", "192.0.2.1:9477", "[::]:9477", "[2001:db8::1]:9477"])
def test_other_machines_only_in_so_many_words(listen):
    text = f'[metrics]\nlisten = "{listen}"\n'
    with pytest.raises(ConfigError, match=r'listen = ".*" lets other machines ask; add other_machines = true'):
        checks.check(parse(text, "x", Path("/")))
    warnings = checks.check(parse(text + "other_machines = true\n", "x", Path("/")))
    assert any("whoever reaches this address can read the metrics on their way" in one for one in warnings)


@pytest.mark.parametrize(("settings", "said"), [
    ({"certificate": "box.pem"}, "certificate and certificate_key go together"),
    ({"certificate_key": "box.key"}, "certificate and certificate_key go together"),
    ({"certificate": "none", "certificate_key": "box.key"}, 'certificate = ".*/none" cannot be read: No such file'),
    ({"certificate": "box.pem", "certificate_key": "none"}, 'certificate_key = ".*/none" cannot be read: No such'),
    ({"certificate": "box.key", "certificate_key": "locked.key"}, "both must be PEM, without a pass phrase"),
    ({"certificate": "box.pem", "certificate_key": "locked.key"}, "both must be PEM, without a pass phrase"),
    ({"certificate": "box.pem", "certificate_key": "bare.key"},
     'certificate_key = ".*/bare.key" can be read by everybody; chmod 0640 it'),
    ({"token_file": "none"}, 'token_file = ".*/none" cannot be read: No such file'),
    ({"token_file": "empty"}, "must hold one line of visible ASCII"),
    ({"token_file": "two"}, "must hold one line of visible ASCII"),
    ({"token_file": "open"}, "can be read by everybody; chmod 0640 it"),
])
def test_what_cannot_be_used_is_said_before_the_start(files, settings, said):
    with pytest.raises(ConfigError, match=said) as error:
        door.prepare(Metrics(**{key: files / name for key, name in settings.items()}))
    assert "\n" not in str(error.value) and TOKEN.decode() not in str(error.value)
