"""Certificates by which a client sees which site a TLS server took it for. In: names. Out: NAME.pem and NAME.key."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def write_certificates(home: Path, hosts: dict[str, str]) -> None:
    """Self-signed, one for each site; kept where they are there already."""
    now = datetime.now(UTC)
    for name, host in hosts.items():
        if (home / f"{name}.key").exists():
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        made = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
                .not_valid_after(now + timedelta(days=30))
                .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
                .sign(key, hashes.SHA256()))
        (home / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (home / f"{name}.key").write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
