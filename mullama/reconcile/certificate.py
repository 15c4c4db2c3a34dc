"""The certificate of the server from its files, checked before it is used. Blocks: call it in a thread."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from email.utils import formatdate
from pathlib import Path
from typing import Any

from mullama.errors import Invalid, MullamaError
from mullama.manifest.spec import Tls
from mullama.struct import Struct

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the module has no name for
_FLIGHTS = 4  # turns of both sides; a handshake takes two or three

_PEM = "PEM files: the certificate chain, and its key"

Stamps = tuple[tuple[int, int, int] | None, ...]


class Certificate(Struct, frozen=True, kw_only=True):
    """A certificate that is ready for use."""

    context: ssl.SSLContext
    settings: Tls
    stamps: Stamps
    """The state of its files before they were read."""
    names: tuple[str, ...]
    """The host names and addresses that it is for."""
    begins: float
    """Unix time in seconds."""
    expires: float
    """Unix time in seconds."""


def load_certificate(settings: Tls, *, now: float, any_time: bool = False) -> Certificate:
    """Return the certificate of these files.

    now: Unix time in seconds. any_time: accept a certificate that is not valid at this time. Raises `Invalid` for files
    that cannot be read, and for a key of another certificate.
    """
    stamps = stamps_of(settings)
    context = _context(settings)
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(cafile=settings.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(settings.client_ca, "server.tls.client_ca", error, "a PEM file of authorities") from error
        context.verify_mode = ssl.CERT_REQUIRED
    found = _fields(settings)
    names = tuple(name for kind, name in found.get("subjectAltName", ()) if kind in ("DNS", "IP Address"))
    certificate = Certificate(
        context=context, settings=settings, stamps=stamps, names=names,
        begins=float(ssl.cert_time_to_seconds(found["notBefore"])),
        expires=float(ssl.cert_time_to_seconds(found["notAfter"])),
    )  # fmt: skip
    if not any_time and (wrong := untimely(certificate, now)) is not None:
        raise wrong
    return certificate


def stamps_of(settings: Tls) -> Stamps:
    """Return the state of the files of the certificate, None for each one that cannot be read."""
    return tuple(_stamp(path) for path in (settings.cert, settings.key, settings.client_ca) if path is not None)


def untimely(certificate: Certificate, now: float) -> MullamaError | None:
    """Return the error of a certificate that is not valid at this Unix time."""
    path = certificate.settings.cert
    if now > certificate.expires:
        return Invalid(
            f"server.tls.cert: {path} expired on {formatdate(certificate.expires, usegmt=True)}",
            hint="replace the file: it is read again when it changes",
        )
    if now < certificate.begins:
        return Invalid(
            f"server.tls.cert: {path} is valid from {formatdate(certificate.begins, usegmt=True)} on",
            hint="correct the clock of this machine, or use another certificate",
        )
    return None


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _context(settings: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A key with a passphrase would be asked for on the terminal.
        context.load_cert_chain(settings.cert, settings.key, password=_no_passphrase)
    except _Passphrase:
        raise Invalid(
            f"server.tls.key: {settings.key} has a passphrase", hint="use a key file without one, for this user only"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Invalid(
                f"server.tls.key: {settings.key} is not the key of the certificate {settings.cert}",
                hint="replace both files together",
            ) from error
        both = f"{settings.cert} with {settings.key}"
        raise (_incomplete(settings) or _unusable(both, "server.tls", error)) from error
    except OSError as error:
        missing = next((p for p in (settings.cert, settings.key) if _unreadable(p)), settings.cert)
        raise _unusable(missing, "server.tls", error) from error
    return context


class _Passphrase(Exception):
    pass


def _no_passphrase() -> str:
    raise _Passphrase


def _unreadable(path: str) -> bool:
    return not os.access(path, os.R_OK)


def _incomplete(settings: Tls) -> Invalid | None:
    """Return the error of the file without the end of its part: it is another file, or not completely written."""
    for field, path, part, end in (
        ("cert", settings.cert, "certificate", rb"-----END CERTIFICATE-----"),
        ("key", settings.key, "private key", rb"-----END ([A-Z]+ )?PRIVATE KEY-----"),
    ):
        with contextlib.suppress(OSError):
            if re.search(end, Path(path).read_bytes()) is None:
                message = f"server.tls.{field}: {path} has no complete {part} in PEM form"
                return Invalid(message, hint="write the whole file; it is read again when it changes")
    return None


def _unusable(path: str, field: str, error: Exception, hint: str = _PEM) -> Invalid:
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
    detail = str(reason or str(error) or "no certificate in PEM form").replace("_", " ").lower()
    return Invalid(f"{field}: {path} cannot be used: {detail}", hint=hint)


def _fields(settings: Tls) -> dict[str, Any]:
    """Return the fields of the certificate.

    The standard library reads certificates during a handshake only, so this is one in memory, with a client that trusts
    the certificate itself at any time.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    client.load_verify_locations(cafile=settings.cert)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(incoming, outgoing)
    theirs = _context(settings).wrap_bio(outgoing, incoming, server_side=True)
    try:
        for side in (ours, theirs) * _FLIGHTS:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLError as error:
        raise _unusable(settings.cert, "server.tls.cert", error) from error
    return dict(ours.getpeercert() or {})
