"""A throw-away certificate authority in plain Python: no openssl binary, no package, no private key in the repository.

Only what a TLS client checks is written: RSA 2048, SHA-256, X.509 v3 with names. Never use it outside a test.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

_SMALL_PRIMES = [p for p in range(3, 2000, 2) if all(p % d for d in range(3, int(p**0.5) + 1, 2))]
_SHA256_RSA = bytes.fromhex("300d06092a864886f70d01010b0500")
_RSA = bytes.fromhex("300d06092a864886f70d0101010500")
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
_EXPONENT = 65537


@dataclass(frozen=True)
class Key:
    n: int
    d: int
    p: int
    q: int

    def sign(self, data: bytes) -> bytes:
        """PKCS #1 v1.5 with SHA-256."""
        info = _DIGEST_INFO + hashlib.sha256(data).digest()
        padded = b"\x00\x01" + b"\xff" * (256 - 3 - len(info)) + b"\x00" + info
        return pow(int.from_bytes(padded), self.d, self.n).to_bytes(256)

    def public(self) -> bytes:
        return _sequence(_RSA, _tagged(0x03, b"\0" + _sequence(_integer(self.n), _integer(_EXPONENT))))

    def pem(self) -> str:
        parts = (0, self.n, _EXPONENT, self.d, self.p, self.q, self.d % (self.p - 1), self.d % (self.q - 1))
        body = _sequence(*(_integer(part) for part in (*parts, pow(self.q, -1, self.p))))
        return _pem("RSA PRIVATE KEY", body)


def write_certificate(folder: Path, names: Sequence[str]) -> tuple[Path, Path, Path]:
    """Files for a server of these host names and addresses: its certificate, its key, and the authority to trust."""
    authority, server = _new_key(), _new_key()
    ca = _certificate("sandbox test authority", authority, authority, "sandbox test authority", names=())
    leaf = _certificate("sandbox test server", server, authority, "sandbox test authority", names=names)
    files = folder / "server.pem", folder / "server.key", folder / "authority.pem"
    for file, text in zip(files, (_pem("CERTIFICATE", leaf), server.pem(), _pem("CERTIFICATE", ca)), strict=True):
        file.write_text(text)
    return files


def _certificate(subject: str, key: Key, issuer_key: Key, issuer: str, names: Sequence[str]) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    validity = _sequence(_time(now - datetime.timedelta(days=1)), _time(now + datetime.timedelta(days=2)))
    identifier = _tagged(0x04, hashlib.sha256(key.public()).digest()[:20])
    issuer_identifier = _tagged(0x80, hashlib.sha256(issuer_key.public()).digest()[:20])
    extensions = [
        _extension("551d0e", identifier),  # subject key identifier
        _extension("551d23", _sequence(issuer_identifier)),  # authority key identifier
    ]
    if names:
        extensions.append(_extension("551d11", _sequence(*map(_alternative_name, names))))
        extensions.append(_extension("551d13", _sequence(), critical=True))  # no authority
    else:
        extensions.append(_extension("551d13", _sequence(b"\x01\x01\xff"), critical=True))  # an authority
        extensions.append(_extension("551d0f", b"\x03\x02\x01\x06", critical=True))  # that signs certificates
    body = _sequence(
        _tagged(0xA0, _integer(2)),
        _integer(secrets.randbits(64)),
        _SHA256_RSA,
        _name(issuer),
        validity,
        _name(subject),
        key.public(),
        _tagged(0xA3, _sequence(*extensions)),
    )
    return _sequence(body, _SHA256_RSA, _tagged(0x03, b"\0" + issuer_key.sign(body)))


def _new_key() -> Key:
    p, q = _prime(), _prime()
    return Key(p * q, pow(_EXPONENT, -1, (p - 1) * (q - 1)), p, q)


def _prime() -> int:
    while True:
        # the two upper bits set: the product of two has 2048 bits
        candidate = secrets.randbits(1024) | (3 << 1022) | 1
        if any(candidate % small == 0 for small in _SMALL_PRIMES) or candidate % _EXPONENT == 1:
            continue
        # Fermat to two bases: a random 1024-bit number that fools both is not to be feared in a test
        if pow(2, candidate - 1, candidate) == 1 and pow(3, candidate - 1, candidate) == 1:
            return candidate


def _tagged(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 128 + len(length)]) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _time(when: datetime.datetime) -> bytes:
    return _tagged(0x17, when.strftime("%y%m%d%H%M%SZ").encode())


def _name(common: str) -> bytes:
    attribute = _sequence(bytes.fromhex("0603550403"), _tagged(0x0C, common.encode()))
    return _sequence(_tagged(0x31, attribute))


def _alternative_name(name: str) -> bytes:
    try:
        return _tagged(0x87, ip_address(name).packed)
    except ValueError:
        return _tagged(0x82, name.encode())


def _extension(identifier: str, value: bytes, critical: bool = False) -> bytes:
    return _sequence(
        _tagged(0x06, bytes.fromhex(identifier)), b"\x01\x01\xff" if critical else b"", _tagged(0x04, value)
    )


def _pem(label: str, data: bytes) -> str:
    text = base64.encodebytes(data).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n"
