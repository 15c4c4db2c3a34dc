"""The one way to the network: redirects, credentials, deadlines, bounds, TLS, proxies, addresses."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mullama.errors import Invalid, Refused, TooLarge, TransferFailed
from mullama.sources import network
from mullama.sources.http_client import TransientError, Web, proxy_of
from mullama.sources.network import Cancellation
from mullama.sources.settings import Timeouts
from mullama.weights.located import Credential
from tests.stub_hub import Redirect, Silent, Status, StubHub

SECRET = Credential({"Authorization": "Bearer canary"}, "a test")


@pytest.fixture
def web() -> Iterator[Web]:
    with Web(waits=Timeouts(connect=60, headers=60, idle=60)) as opened:
        yield opened


def test_the_secret_headers_go_to_the_same_origin_only(hub: StubHub, web: Web) -> None:
    with StubHub("127.0.0.2") as other:
        other.files["/end"] = b"end"
        hub.script("/a", Redirect("/b"))
        hub.script("/b", Redirect(f"{other.url}/c"))
        other.script("/c", Redirect("/end"))
        with web.get(f"{hub.url}/a", None, SECRET) as answer:
            assert answer.body() == b"end"
        assert [asked.headers.get("Authorization") for asked in hub.requests] == ["Bearer canary"] * 2
        assert [asked.headers.get("Authorization") for asked in other.requests] == [None, None]


def test_a_secret_does_not_come_back_after_a_detour(hub: StubHub, web: Web) -> None:
    with StubHub("127.0.0.2") as other:
        hub.files["/home"] = b"x"
        hub.script("/a", Redirect(f"{other.url}/b"))
        other.script("/b", Redirect(f"{hub.url}/home"))
        with web.get(f"{hub.url}/a", None, SECRET) as answer:
            assert answer.status == 200
        assert [asked.headers.get("Authorization") for asked in hub.requests] == ["Bearer canary", None]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_followed(hub: StubHub, web: Web, code: int) -> None:
    hub.files["/end"] = b"end"
    hub.script("/a", Redirect("/end", code))
    with web.get(f"{hub.url}/a") as answer:
        assert (answer.status, answer.url) == (200, f"{hub.url}/end")


def test_a_sixth_redirect_is_one_too_many(hub: StubHub, web: Web) -> None:
    hub.files["/x"] = b"x"
    hub.script("/x", *[Redirect("/x")] * 5)
    with web.get(f"{hub.url}/x") as answer:
        assert answer.body() == b"x"
    hub.script("/x", *[Redirect("/x")] * 6)
    with pytest.raises(TransferFailed, match="more than 5 redirects"), web.get(f"{hub.url}/x"):
        pass


def test_a_body_over_its_bound_is_not_read_to_its_end(hub: StubHub, web: Web) -> None:
    hub.files["/big"] = bytes(64 * 2**20)
    with web.get(f"{hub.url}/big") as answer, pytest.raises(TooLarge, match="larger than 4 MiB"):
        answer.body()
    assert hub.sent < 48 * 2**20, "what the system holds on its way is counted, too"


def test_a_failure_names_the_place_without_its_user(web: Web) -> None:
    with pytest.raises(TransientError, match=r"^127\.0\.0\.1:9: ") as caught, web.get("http://me:s3cret@127.0.0.1:9/x"):
        pass
    assert "s3cret" not in str(caught.value)


def test_an_encoded_answer_is_refused_before_it_is_unpacked(hub: StubHub, web: Web) -> None:
    from tests.stub_hub import Gzip

    hub.files["/bomb"] = bytes(10 * 2**20)
    hub.script("/bomb", Gzip())
    with web.get(f"{hub.url}/bomb") as answer, pytest.raises(TransientError, match="encoded"):
        answer.body()
    assert hub.requests[0].headers["Accept-Encoding"] == "identity"


def test_no_header_within_the_limit_ends_the_wait(hub: StubHub) -> None:
    hub.script("/x", Silent())
    begun = time.monotonic()
    with Web(waits=Timeouts(connect=1, headers=0.3, idle=60)) as quick:
        with pytest.raises(TransientError, match="did not answer in time"), quick.get(f"{hub.url}/x"):
            pass
        assert time.monotonic() - begun < 50


def test_headers_that_drip_in_do_not_extend_the_limit(web: Web) -> None:
    """One byte now and then is an answer to each single read, but not to the whole."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 10_000:
                    if done.wait(0.02):
                        return
                    try:
                        connection.send(bytes([byte]))
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        quick = Web(waits=Timeouts(connect=0.5, headers=0.3, idle=60))
        begun = time.monotonic()
        with quick, pytest.raises(TransientError), quick.get(f"http://127.0.0.1:{server.getsockname()[1]}/x"):
            pass
        assert time.monotonic() - begun < 50, "all of it takes 200 s"
        done.set()
        thread.join()


def test_a_waiting_request_can_be_cancelled(hub: StubHub) -> None:
    hub.script("/x", Silent())
    with (
        Web(waits=Timeouts(headers=600, idle=600), cancelled=hub.arrived.is_set) as patient,
        pytest.raises(Cancellation),
        patient.get(f"{hub.url}/x"),
    ):
        pass


@pytest.mark.parametrize("url", ["http://[::1", "http://a b/", "http:///x", "http://x:99999/"])
def test_what_is_no_address_is_refused(web: Web, url: str) -> None:
    with pytest.raises((Invalid, TransientError)), web.get(url):
        pass


@pytest.mark.parametrize(
    "target", ["http://[::1", "http://x:99999/", "gopher://x/", "javascript:x", "file:///etc/passwd"]
)
def test_a_redirect_to_what_is_no_address_is_refused(hub: StubHub, web: Web, target: str) -> None:
    hub.script("/x", Redirect(target))
    with pytest.raises(TransferFailed, match="redirects"), web.get(f"{hub.url}/x"):
        pass


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "0.0.0.0", "::", "::1", "::ffff:10.0.0.1", "fe80::1"],
)
def test_with_public_only_an_inner_address_is_refused_however_it_is_written(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", (address, 80))])
    with pytest.raises(Refused, match="not a public address"):
        network.allowed_address("hub.example", 80, network.is_public)


def test_with_public_only_the_checked_address_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry])
    assert network.allowed_address("hub.example", 443, network.is_public) == "93.184.216.34"
    private = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry, private])
    with pytest.raises(Refused):
        network.allowed_address("hub.example", 443, network.is_public)


def test_a_request_with_public_only_never_reaches_this_machine(hub: StubHub) -> None:
    hub.files["/x"] = b"x"
    with Web(allowed=network.is_public) as fenced, pytest.raises(Refused), fenced.get(f"{hub.url}/x"):
        pass
    assert hub.requests == []


def test_a_proxy_of_the_environment_is_used_and_its_exceptions_hold(
    hub: StubHub, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["/x"] = b"from the proxy"
    monkeypatch.setenv("http_proxy", hub.url)
    with web.get("http://somewhere.example/x") as answer:
        assert answer.body() == b"from the proxy"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert proxy_of(f"{hub.url}/x") == ""
    assert proxy_of("http://other.example/x") == hub.url


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    path = tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=stub", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key.pem"),
         "-out", str(tmp_path / "only.pem")], capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    path.write_bytes((tmp_path / "key.pem").read_bytes() + (tmp_path / "only.pem").read_bytes())
    return path


def test_certificates_are_checked_and_a_bundle_of_ones_own_is_honoured(
    certificate: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StubHub(certificate=str(certificate)) as secure:
        secure.files["/x"] = b"sealed"
        with pytest.raises(TransientError, match="CERTIFICATE_VERIFY_FAILED"), web.get(f"{secure.url}/x"):
            pass
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("only.pem")))
        with Web(waits=Timeouts(headers=60, idle=60)) as trusting, trusting.get(f"{secure.url}/x") as answer:
            assert answer.body() == b"sealed"


def test_a_redirect_from_https_to_http_is_refused(
    certificate: Path, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("only.pem")))
    with StubHub(certificate=str(certificate)) as secure, Web() as trusting:
        secure.script("/x", Redirect(f"{hub.url}/x"))
        with pytest.raises(TransferFailed, match="from https to http"), trusting.get(f"{secure.url}/x"):
            pass
    assert hub.requests == []


@pytest.mark.parametrize(
    ("header", "expected"), [('"abc"', '"abc"'), ('W/"abc"', ""), ("abc", ""), ("", ""), ('"a"b"', ""), ('"\x01"', "")]
)
def test_only_strong_validators_count(hub: StubHub, web: Web, header: str, expected: str) -> None:
    hub.script("/x", Status(200, {"ETag": header} if header else {}))
    try:
        with web.get(f"{hub.url}/x") as answer:
            assert answer.validator == expected
    except TransientError:
        assert "\x01" in header
