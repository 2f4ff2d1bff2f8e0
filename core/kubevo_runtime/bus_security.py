"""Who we are to the broker and how we know the broker: credentials, certificates, refusals.

nats-py is kept away from credentials files, which it reads in an endless loop when they have no
token and with errors that end its reconnecting; from giving up a connection that has worked for
what the server says against it; and from sending secrets in the clear where TLS was asked for.
"""

import base64
import re
import ssl
from pathlib import Path

import nats.errors
import structlog
from nats.aio.client import Client, Srv
from nats.aio.transport import TcpTransport

from kubevo_core.errors import BusError
from kubevo_runtime.bus_types import BusSettings
from kubevo_runtime.nkey import Key, Kind

__all__ = ["BrokerClient", "CredentialsFile", "is_denial", "refusal", "tls_context"]

JWT_BEGINS = "-----BEGIN NATS USER JWT-----"
SEED_BEGINS = "-----BEGIN USER NKEY SEED-----"
DENIED = "permissions violation"

log = structlog.get_logger()


class Unencrypted(nats.errors.Error):
    """The server does not ask for TLS, so what follows would be readable on its way."""


class CredentialsFile:
    """A user's token and key, read at each connect, so that renewed ones are taken up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jwt = b""
        self._key: Key | None = None

    def load(self) -> None:
        """Read the file.

        Raises:
            BusError: it cannot be read, or is not a credentials file.
        """
        try:
            lines = self._path.read_text("ascii").splitlines()
        except OSError as exc:
            raise self._problem(f"{exc.strerror or exc}; check the path and its mode") from exc
        except UnicodeError as exc:
            raise self._problem("it is not text; write the file anew") from exc
        jwt, seed = _after(lines, JWT_BEGINS), _after(lines, SEED_BEGINS)
        if jwt.count(".") != 2 or not seed:
            raise self._problem(
                f"expected the lines {JWT_BEGINS} and {SEED_BEGINS}, each followed by its value, "
                f"got {len(lines)} lines that have not both; write the file anew"
            )
        try:
            self._key = Key.parse(seed, Kind.USER)
        except ValueError as exc:
            raise self._problem(f"{exc}; write the file anew") from exc
        self._jwt = jwt.encode()

    def _problem(self, what: str) -> BusError:
        return BusError(f"the broker's credentials file {self._path}: {what}")

    def sign(self, nonce: str) -> bytes:
        """Return the signature of the server's challenge, which it asks for at each connect."""
        try:
            self.load()
        except BusError as exc:  # the file may be in the midst of being renewed
            log.warning("credentials_unreadable", error=str(exc))
        if self._key is None:
            raise nats.errors.Error(f"{self._path} has not been read")
        return base64.b64encode(self._key.sign(nonce.encode()))

    def jwt(self) -> bytearray:
        """Return the token of the file as `sign` has read it just before."""
        return bytearray(self._jwt)


def _after(lines: list[str], begin: str) -> str:
    """Return the line after the line ``begin``, or nothing."""
    stripped = [line.strip() for line in lines]
    if begin not in stripped[:-1]:
        return ""
    return stripped[stripped.index(begin) + 1]


def tls_context(settings: BusSettings) -> ssl.SSLContext | None:
    """Return how to check the server and to prove who we are, if the settings ask for TLS.

    Raises:
        BusError: a file cannot be read, or is not a certificate or its key.
    """
    if not settings.requires_tls:
        return None
    authority = settings.tls_ca
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as exc:
        raise BusError(
            f"the broker's certificate authority {authority}: expected a readable file of PEM "
            f"certificates, got {_reason(exc)}; write the file anew"
        ) from exc
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as exc:
            raise BusError(
                f"the client certificate {certificate} and its key {key}: expected a matching pair "
                f"of readable PEM files, got {_reason(exc)}; write the files anew"
            ) from exc
    return context


def _reason(exc: OSError) -> str:
    # What OpenSSL says of a file that is empty or holds something else is an SSLError.
    return exc.strerror or str(exc) or type(exc).__name__


class BrokerClient(Client):
    """nats-py's client, without what would end a connection for good or lay secrets open."""

    def __init__(self, *, requires_tls: bool) -> None:
        super().__init__()
        self._requires_tls = requires_tls

    async def _connect_to_server(self, s: Srv) -> None:
        # nats-py forgets the socket of an attempt that was refused; it would stay open.
        if isinstance(self._transport, TcpTransport):
            self._transport.close()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        # nats-py takes tls:// for a hint, and encrypts only when the server demands it.
        if self._requires_tls and not self._server_info.get("tls_required"):
            raise Unencrypted("the server does not ask for TLS")
        return super()._connect_command()

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good at nearly everything that the server says, also where it is asked
        # to reconnect for ever: at a restart with other accounts, for one.
        if DENIED in err_msg:
            await super()._process_err(err_msg)
            return
        exc = nats.errors.Error(f"nats: {err_msg}")
        await self._error_cb(exc)
        await self._process_op_err(exc)


def is_denial(exc: Exception) -> bool:
    """Tell whether the server says that this user has no right to a subject."""
    return DENIED in str(exc).lower()


def refusal(exc: Exception, settings: BusSettings) -> str | None:
    """Return what is wrong and what to do when waiting does not help; None when it may."""
    text = str(exc).lower()
    if isinstance(exc, Unencrypted):
        return f"{exc}; switch TLS on there, or use a nats:// address and no certificates here"
    if isinstance(exc, ssl.SSLCertVerificationError):
        authority = settings.tls_ca or "the system's certificate authorities"
        return (
            f"its certificate is not trusted: {exc.verify_message or exc}; checked with "
            f"{authority}: check the authority's file and the name in the address"
        )
    if isinstance(exc, ssl.SSLError) and re.search(r"alert.*(certificate|unknown.ca)", text):
        return (
            f"it refused our certificate ({settings.tls_cert or 'none was given'}): {exc}; give one "
            "that the broker's own authority has signed"
        )
    if "timeout" in text or not ("authorization" in text or "authentication" in text):
        return None
    shown = f"it refused the credentials: {exc}"
    if settings.credentials is not None:
        return (
            f"{shown}; check that {settings.credentials} was made with the keys of this broker, "
            "and that the broker has been started with its present configuration"
        )
    if settings.token is not None:
        return f"{shown}; check the token"
    return f"{shown}; none were given: give a token or a credentials file"
