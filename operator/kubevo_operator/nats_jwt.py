"""The tokens of NATS's operator mode: who signs whom, and what an account and a user may do.

::

    operator --signs--> account        --signs--> user    publishes and listens as its rights say
             --signs--> system account                    the server's own events

A token is base64url(header).base64url(claims).base64url(Ed25519 signature of both), without
padding. Pure: keys and times are arguments, and the same ones give the same text.
"""

import base64
import hashlib
import json
from typing import Any

from kubevo_runtime.bus import WorkerRights
from kubevo_runtime.nkey import Key

__all__ = ["account_jwt", "credentials_text", "operator_jwt", "user_jwt"]

HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
VERSION = 2
UNLIMITED = -1
COUNTED = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
STORED = ("mem_storage", "disk_storage", "streams", "consumer")


def operator_jwt(operator: Key, system_account: str, issued: int) -> str:
    """Return an operator's token; it signs itself. ``issued`` is in Unix seconds."""
    claims = {"system_account": system_account, "type": "operator"}
    return _encode(operator, operator.public, "kubevo", issued, claims)


def account_jwt(operator: Key, account: str, name: str, issued: int, *, stores: bool) -> str:
    """Return an account's token; without ``stores`` it has no JetStream, as the system account."""
    # An account that states no limit of storage has none to store in.
    limits = dict.fromkeys(COUNTED + STORED * stores, UNLIMITED)
    claims = {"limits": {**limits, "wildcards": True}, "type": "account"}
    return _encode(operator, account, name, issued, claims)


def user_jwt(account: Key, user: str, name: str, issued: int, rights: WorkerRights | None) -> str:
    """Return a user's token, without an end; no ``rights`` means all of the account's.

    It never expires because nats-py closes for good when it does, also with a renewed one at hand,
    and the evaluation that runs then would be lost; the rights end with the Experiment's streams.
    """
    limits: dict[str, Any] = dict.fromkeys(("subs", "data", "payload"), UNLIMITED)
    if rights is not None:
        limits["pub"] = {"allow": list(rights.publish)}
        limits["sub"] = {"allow": list(rights.subscribe)}
    return _encode(account, user, name, issued, {**limits, "type": "user"})


def credentials_text(jwt: str, user: Key) -> str:
    """Return the text of a credentials file: a user's token and its secret seed."""
    # The dashes are NATS's: five before, five or six after.
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "Whoever has this seed is this user: keep it secret.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )


def _encode(signer: Key, subject: str, name: str, issued: int, nats: dict[str, Any]) -> str:
    claims = {
        "iat": issued,
        "iss": signer.public,
        "name": name,
        "nats": {**nats, "version": VERSION},
        "sub": subject,
    }
    # An id by content; NATS's own tools take SHA-512/256, which not every Python has.
    digest = hashlib.sha256(_json(claims)).digest()
    claims["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    signed = f"{_base64(_json(HEADER))}.{_base64(_json(claims))}"
    return f"{signed}.{_base64(signer.sign(signed.encode()))}"


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _base64(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()
