"""Can this machine reach the coordinator, and is it the one of the link? Nothing secret is sent to find out."""

from __future__ import annotations

import datetime
import email.utils
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cryptography import x509

from koinon.fleet.participant.examination import Answer, Check, Wrong
from koinon.fleet.participant.http_proxy import proxy_login
from koinon.fleet.wire.certificates import fingerprint
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.offer import OfferedRun

_PAGE_BYTES = 1 << 16
_ASK_FOR_LINK = "Compare the link's host and port with the operator's, or ask for a new link."
_ENDS_SOON = datetime.timedelta(days=14)
_LAG_SECONDS = 60.0
_REFUSED_BY_PROXY = "Tunnel connection failed: "  # http.client's words before the proxy's own status
_ASK_FOR_PAIR = (
    "If the operator uses mTLS, give --certificate and --key as the authority that the operator named has issued them "
    "(PEM, no password). If not, what listens there is no koinon coordinator."
)
_WANTS_A_PAIR = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_UNKNOWN_CA")
_NOT_YET, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64  # X509_V_ERR_... of OpenSSL's x509_vfy.h


@dataclass(frozen=True)
class Case:
    """What is asked about, and what has been found out so far.

    ``proxy`` is the URL of the HTTP proxy, ``folder`` where the participant keeps its state, ``app`` resolves its
    app and describes it as JSON; None where there is none.
    """

    link: JoinLink
    proxy: str | None
    folder: Path
    app: Callable[[], Mapping[str, Any]] | None = None
    pair: tuple[Path, Path] | None = None  # mTLS: this party's certificate and key
    certificate: x509.Certificate | None = None  # the one shown, trusted or not
    authority: str | None = None  # the coordinator's own, in PEM, once its fingerprint is the link's
    lag_seconds: float | None = None  # how far the coordinator's clock is ahead of this machine's
    authorization: str = ""  # what opens the probes: the invitation, or a session
    runs: tuple[OfferedRun, ...] = ()
    down: float | None = None  # bytes a second
    up: float | None = None

    @property
    def url(self) -> SplitResult:
        """The coordinator's address."""
        return urlsplit(self.link.url)

    @property
    def host(self) -> str:
        """The coordinator's host."""
        return self.url.hostname or ""

    @property
    def port(self) -> int:
        """The coordinator's port."""
        return self.url.port or (443 if self.secure else 80)

    @property
    def secure(self) -> bool:
        """Whether the link asks for TLS."""
        return self.url.scheme == "https"

    @property
    def dialled(self) -> tuple[str, int]:
        """Where this machine itself opens a connection to: the proxy, or else the coordinator."""
        if self.proxy is None:
            return self.host, self.port
        proxy = urlsplit(self.proxy)
        return proxy.hostname or "", proxy.port or 3128


def checks() -> tuple[Check[Case], ...]:
    """Return the checks of the way, in order."""
    return (
        Check("proxy", None, 1.0, _proxy),
        Check("DNS", "proxy", 3.0, _dns),
        Check("TCP port", "DNS", 3.0, _port),
        Check("TLS", "TCP port", 4.0, _tls),
        Check("clock", "TLS", 3.0, _clock),
        Check("CA fingerprint", "clock", 3.0, _authority),
        Check("certificate", "CA fingerprint", 3.0, _certificate),
    )


def dial(case: Case, context: ssl.SSLContext, seconds: float) -> http.client.HTTPConnection:
    """Return an open connection to the coordinator, through the proxy where there is one. Raises OSError."""
    host, port = case.dialled
    connection = (
        http.client.HTTPSConnection(host, port, context=context, timeout=seconds)
        if case.secure
        else http.client.HTTPConnection(host, port, timeout=seconds)
    )
    if case.proxy is not None:
        connection.set_tunnel(case.host, case.port, headers=proxy_login(case.proxy))
    try:
        connection.connect()
    except OSError:
        connection.close()
        raise
    return connection


def _proxy(case: Case) -> Answer[Case]:
    if case.proxy is None:
        return Answer(case, f"none is set for {case.host}: this machine dials the coordinator itself")
    host, port = case.dialled
    if not host or urlsplit(case.proxy).scheme != "http":
        raise Wrong(
            f"the proxy is given as {f'...@{host}' if '@' in case.proxy else case.proxy}, which is no http:// address",
            "Give it as http://HOST:PORT in HTTPS_PROXY or --proxy. (Only the way to the proxy is plain; what passes "
            "through it stays encrypted for the coordinator.)",
        )
    return Answer(case, f"connections go through the proxy {host}:{port} (NO_PROXY={case.host} dials without it)")


def _dns(case: Case) -> Answer[Case]:
    host, port = case.dialled
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        whose = "the link" if case.proxy is None else "the proxy's address"
        raise Wrong(
            f"no address is known for {host} ({getattr(error, 'strerror', None) or error})",
            f"Look for a typing error in {whose}. If the name is right, it is known only in another network (connect "
            "to its VPN) or this machine's DNS server does not answer.",
        ) from error
    addresses = sorted({str(item[4][0]) for item in found})
    return Answer(case, f"{host} is {', '.join(addresses)}")


def _port(case: Case) -> Answer[Case]:
    host, port = case.dialled
    begun = time.monotonic()
    try:
        socket.create_connection((host, port), timeout=2.5).close()
    except ConnectionRefusedError as error:
        listens = (
            f"Ask whether koinon serve runs, and on this port. --listen 127.0.0.1:{port} is reached from its own machine "
            f"only; --listen 0.0.0.0:{port} from others too."
        )
        if case.proxy:
            listens = "Compare the proxy's host and port, in --proxy or HTTPS_PROXY, with what whoever runs it says."
        raise Wrong(f"{host} refuses connections to port {port}: nothing listens there", listens) from error
    except TimeoutError as error:
        raise Wrong(
            f"{host} does not answer on port {port} within 2.5 s",
            f"A firewall drops the packets: ask for outgoing TCP to {host}:{port} here, and incoming there. Where only "
            "a proxy may go out, set HTTPS_PROXY=http://HOST:PORT.",
        ) from error
    except OSError as error:
        raise Wrong(
            f"{host}:{port} cannot be reached ({error.strerror or error})",
            "There is no way from this network to that address: ask whoever runs the network, or connect to the VPN.",
        ) from error
    return Answer(case, f"{host}:{port} accepts connections ({1000 * (time.monotonic() - begun):.0f} ms)")


def _tls(case: Case) -> Answer[Case]:
    """Shake hands with whoever answers, trusted or not, and keep the certificate shown."""
    if not case.secure:
        return Answer(
            case,
            "the link begins with http://: anybody on the way can read and change models",
            "Good for a trial on one machine only. Start koinon serve without --plain-http and take its new link.",
        )
    try:
        connection = dial(case, _trusting_anybody(case), 3.5)
    except OSError as error:
        raise _no_handshake(case, error) from error
    try:
        assert isinstance(connection.sock, ssl.SSLSocket), "a secure link is dialled with TLS"
        shown, version = connection.sock.getpeercert(binary_form=True), connection.sock.version()
    finally:
        connection.close()
    try:
        certificate = x509.load_der_x509_certificate(shown or b"")
    except ValueError as error:
        raise Wrong(f"the certificate shown cannot be read ({error})", _ASK_FOR_LINK) from error
    return Answer(replace(case, certificate=certificate), f"{version} is spoken")


def _no_handshake(case: Case, error: OSError) -> Wrong:
    text = getattr(error, "strerror", None) or str(error)
    if _REFUSED_BY_PROXY in str(error):
        status = str(error).removeprefix(_REFUSED_BY_PROXY)
        fix = (
            "The proxy asks for a name and a password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT."
            if status.startswith("407")
            else f"Ask whoever runs the proxy to allow CONNECT to {case.host}:{case.port}."
        )
        return Wrong(f"the proxy does not let this through: {status}", fix)
    if isinstance(error, TimeoutError):
        return Wrong(
            f"port {case.port} accepts connections and then says nothing",
            "The program behind it hangs, or a firewall lets only the first packets pass: ask for koinon serve to be "
            "started again there, then ask whoever runs the firewall.",
        )
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return Wrong(
            f"what listens on port {case.port} is no HTTPS server",
            "Compare the port of the link with that of koinon serve. (With --plain-http the link begins with http://.)",
        )
    return Wrong(
        f"the TLS handshake fails ({text})",
        "Something on the way ends the connection (a firewall that lets only known sites pass, or another program on "
        "that port). Ask for an exception for the coordinator's host and port.",
    )


def _clock(case: Case) -> Answer[Case]:
    """Read the other side's clock. The protocol needs no common time; certificates do."""
    begun = time.time()
    headers, _ = _get(case, "/healthz", 2.5)
    try:
        theirs = email.utils.parsedate_to_datetime(headers["Date"] or "").timestamp()
    except ValueError:
        return Answer(case, "the answer has no Date, so clocks are not compared (nothing but certificates needs them)")
    lag = theirs + 0.5 - (begun + time.time()) / 2  # a Date is cut to whole seconds
    case = replace(case, lag_seconds=lag)
    if abs(lag) < _LAG_SECONDS:
        return Answer(case, "this machine and the coordinator agree on the time within a minute")
    way = "behind" if lag > 0 else "ahead of"
    return Answer(
        case,
        f"this machine's clock is {_duration(abs(lag))} {way} the coordinator's",
        "Rounds do not mind, but certificates are valid between dates: set the clock (timedatectl set-ntp true).",
    )


def _authority(case: Case) -> Answer[Case]:
    """Compare the coordinator's own authority with the link. Its bytes need no trust: their digest is the link's."""
    pinned = case.link.authority
    if not case.secure:
        return Answer(case, "not needed without TLS")
    if pinned is None:
        return Answer(case, "the link names none: the certificate must be one that this machine trusts by itself")
    _, body = _get(case, "/v1/ca", 2.5)
    try:
        found, text = fingerprint(body), body.decode("ascii")
    except ValueError as error:
        raise Wrong("GET /v1/ca answers no certificate: this is no koinon coordinator", _ASK_FOR_LINK) from error
    if found != pinned:
        raise Wrong(
            f"the authority's fingerprint is {found[:16]}..., the link says {pinned[:16]}...",
            "Either this is another coordinator (its folder was made anew: ask for a new link), or somebody stands "
            "between. Compare the fingerprint with the operator by telephone before you go on.",
        )
    return Answer(replace(case, authority=text), f"{found[:16]}... as the link says")


def _certificate(case: Case) -> Answer[Case]:
    """Shake hands as a participant does: trusting the link's authority alone, or else the system's."""
    if not case.secure:
        return Answer(case, "not needed without TLS")
    try:
        dial(case, trusting(case), 2.5).close()
    except ssl.SSLCertVerificationError as error:
        raise _not_trusted(case, error) from error
    except OSError as error:
        raise _no_handshake(case, error) from error
    assert case.certificate is not None, "the handshake before kept it"
    ends = case.certificate.not_valid_after_utc
    if ends - datetime.datetime.now(datetime.UTC) < _ENDS_SOON:
        return Answer(
            case,
            f"valid for {case.host}, but only until {ends:%Y-%m-%d}",
            "Tell the operator: koinon serve renews its own certificate when it is started again; a certificate of "
            "another authority is renewed there.",
        )
    return Answer(case, f"valid for {case.host} until {ends:%Y-%m-%d}")


def _not_trusted(case: Case, error: ssl.SSLCertVerificationError) -> Wrong:
    shown = case.certificate
    assert shown is not None, "the handshake before kept it"
    if error.verify_code in (_EXPIRED, _NOT_YET):
        valid = f"valid from {shown.not_valid_before_utc:%Y-%m-%d} to {shown.not_valid_after_utc:%Y-%m-%d}"
        today = datetime.datetime.now(datetime.UTC)
        if case.lag_seconds is not None and abs(case.lag_seconds) > _LAG_SECONDS:
            there = today + datetime.timedelta(seconds=case.lag_seconds)
            return Wrong(
                f"the certificate is {valid}; here it is {today:%Y-%m-%d}, at the coordinator {there:%Y-%m-%d}",
                "Set this machine's clock (timedatectl set-ntp true), or the coordinator's: one of them is wrong.",
            )
        return Wrong(
            f"the certificate is {valid}, and today is {today:%Y-%m-%d}",
            "Ask the operator to start koinon serve again: it renews its own certificate then. A certificate of "
            "another authority is renewed there.",
        )
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return Wrong(
            f"the certificate is for {_names(shown)}, not for {case.host}",
            f"Use the host that the certificate names, or ask for koinon serve to be started with --url {case.link.url}.",
        )
    issuer = shown.issuer.rfc4514_string() or "nobody"
    if case.authority is not None:
        return Wrong(
            f"the certificate shown is not the coordinator's: {issuer} signed it",
            "A proxy or firewall here opens encrypted connections. Ask its keepers to exempt "
            f"{case.host}:{case.port}; nothing is sent to a coordinator that cannot be recognised.",
        )
    return Wrong(
        f"this machine does not trust the certificate: {issuer} signed it ({error.verify_message})",
        "Take the whole link, with its ca= part: a coordinator with an authority of its own is recognised by it. If "
        "the link has none, add that authority to this machine's, or set SSL_CERT_FILE.",
    )


def trusting(case: Case) -> ssl.SSLContext:
    """Return how a participant recognises the coordinator: by the link's authority alone, else by the system's."""
    context = ssl.create_default_context(cadata=case.authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return _showing(case.pair, context)


def _trusting_anybody(case: Case) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _showing(case.pair, context)


def _showing(pair: tuple[Path, Path] | None, context: ssl.SSLContext) -> ssl.SSLContext:
    if pair is not None:
        try:
            context.load_cert_chain(*pair)
        except OSError as error:
            raise Wrong(f"the certificate {pair[0]} and its key cannot be used ({error})", _ASK_FOR_PAIR) from error
    return context


def _get(case: Case, path: str, seconds: float) -> tuple[Message, bytes]:
    """Return headers and body of a public page from whoever answers. Raises Wrong."""
    try:
        with closing(dial(case, _trusting_anybody(case), seconds)) as connection:
            connection.request("GET", case.url.path + path)
            answer = connection.getresponse()
            return answer.headers, answer.read(_PAGE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        if case.secure and (isinstance(error, ConnectionError) or getattr(error, "reason", "") in _WANTS_A_PAIR):
            raise Wrong(f"GET {path} is cut off after the handshake ({error})", _ASK_FOR_PAIR) from error
        raise Wrong(
            f"GET {path} is not answered ({type(error).__name__}: {error})",
            f"What listens on port {case.port} is no koinon coordinator, or it hangs, or the line is very slow. Ask "
            "whether koinon serve runs there.",
        ) from error


def _names(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no host"
    return ", ".join(str(name.value) for name in found)


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
