"""The broker's accounts and users: made from three keys that one Secret keeps, the same ever after.

The broker is configured once with the public part and then judges every token by itself, so neither
it nor the operator has to be told of a new Experiment. Users' keys are derived from the account's,
so the same keys give the same bytes: after a restart, and on any replica. Pure.
"""

import base64
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kubevo_core.errors import UserError
from kubevo_operator.nats_jwt import account_jwt, credentials_text, operator_jwt, user_jwt
from kubevo_runtime.bus import WorkerRights, worker_rights
from kubevo_runtime.nkey import Key, Kind

__all__ = [
    "AccountKeys",
    "BrokerKeys",
    "KeysUnusable",
    "broker_config",
    "coordinator_credentials",
    "credentials_belong",
    "evaluator_credentials",
]

OPERATOR, ACCOUNT, SYSTEM = "operator.seed", "account.seed", "system-account.seed"
KINDS = {OPERATOR: Kind.OPERATOR, ACCOUNT: Kind.ACCOUNT, SYSTEM: Kind.ACCOUNT}
CREATED = "created"
SECRET_BYTES = 32
DERIVATION = b"kubevo user 1\0"
COORDINATOR = "coordinator"
_EXPERIMENT = re.compile(r"[A-Za-z0-9_-]+")


class KeysUnusable(UserError):
    """The Secret with the broker's keys lacks one, or holds something else; a person must act."""


@dataclass(frozen=True, kw_only=True)
class AccountKeys:
    """The key of the account of all Experiments, and when it was made (Unix seconds).

    Enough to make users, for a broker that somebody else has configured with the account.
    """

    account_key: Key
    created: int

    @property
    def account(self) -> str:
        """The public key that names the account of all Experiments, for KEDA and for monitoring."""
        return self.account_key.public

    @staticmethod
    def of_seed(text: str, where: str) -> "AccountKeys":
        """Read an account's seed, the content of the file ``where``.

        Raises:
            KeysUnusable: it is none; the message does not show it.
        """
        try:
            key = Key.parse(text.strip(), Kind.ACCOUNT)
        except ValueError as exc:
            raise KeysUnusable(f"the account's seed in {where}: {exc}; correct its Secret") from exc
        # A constant: the same seed gives the same users, whenever they are made.
        return AccountKeys(account_key=key, created=1)


@dataclass(frozen=True, kw_only=True)
class BrokerKeys(AccountKeys):
    """The account's key and the two others of a broker; no representation shows their seeds."""

    operator_key: Key
    system_key: Key

    @staticmethod
    def make(randomness: Callable[[int], bytes], created: int) -> "BrokerKeys":
        """Make new keys; ``randomness`` is `secrets.token_bytes`."""
        operator, account, system = (Key(kind, randomness(SECRET_BYTES)) for kind in KINDS.values())
        return BrokerKeys(
            operator_key=operator, account_key=account, system_key=system, created=created
        )

    def secret_data(self) -> dict[str, str]:
        """Return the ``data`` of the Secret that keeps the keys: base64, all of it secret."""
        values = {
            OPERATOR: self.operator_key.seed,
            ACCOUNT: self.account_key.seed,
            SYSTEM: self.system_key.seed,
            CREATED: str(self.created),
        }
        return {name: base64.b64encode(text.encode()).decode() for name, text in values.items()}

    @staticmethod
    def from_secret_data(data: Mapping[str, str] | None, where: str) -> "BrokerKeys":
        """Read the ``data`` of the Secret ``where`` (its namespace and name); more keys may be there.

        Raises:
            KeysUnusable: one line per problem; none shows a value.
        """
        problems: list[str] = []
        keys: dict[str, Key] = {}
        for name, kind in KINDS.items():
            try:
                keys[name] = Key.parse(_value(data or {}, name), kind)
            except ValueError as exc:
                problems.append(f"{name}: {exc}")
        created = 0
        try:
            created = _seconds(_value(data or {}, CREATED))
        except ValueError as exc:
            problems.append(f"{CREATED}: {exc}")
        if not problems and keys[ACCOUNT] == keys[SYSTEM]:
            problems.append(f"{SYSTEM}: expected the seed of another account than {ACCOUNT}")
        if problems:
            raise KeysUnusable(
                "\n".join(f"the broker's keys in Secret {where}: {line}" for line in problems)
                + "\nrestore it from its backup; or delete it together with the broker's "
                "configuration and start the operator again, which makes new keys, and then "
                "restart the broker"
            )
        return BrokerKeys(
            operator_key=keys[OPERATOR],
            account_key=keys[ACCOUNT],
            system_key=keys[SYSTEM],
            created=created,
        )


def _value(data: Mapping[str, str], name: str) -> str:
    if name not in data:
        raise ValueError("expected a value, got none")
    try:
        return base64.b64decode(data[name], validate=True).decode("ascii").strip()
    except (ValueError, TypeError):
        raise ValueError("expected base64 of a text, got something else") from None


def _seconds(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ValueError("expected seconds since 1970, got something else")
    return int(text)


def broker_config(keys: BrokerKeys) -> str:
    """Return what nats-server includes in its configuration: nothing in it is secret."""
    system = keys.system_key.public
    names = {keys.account: "kubevo", system: "system"}
    tokens = {
        public: account_jwt(
            keys.operator_key, public, name, keys.created, stores=public == keys.account
        )
        for public, name in names.items()
    }
    preloaded = "\n".join(f"  {public}: {json.dumps(token)}" for public, token in tokens.items())
    operator = operator_jwt(keys.operator_key, system, keys.created)
    return (
        f"operator: {json.dumps(operator)}\nsystem_account: {system}\nresolver: MEMORY\n"
        f"resolver_preload: {{\n{preloaded}\n}}\n"
    )


def coordinator_credentials(keys: AccountKeys) -> str:
    """Return the credentials file of the operator: everything in the account of all Experiments."""
    return _credentials(keys, COORDINATOR, None)


def evaluator_credentials(keys: AccountKeys, experiment_id: str) -> str:
    """Return the credentials file of one Experiment's evaluators, for its work and nothing else.

    Raises:
        ValueError: ``experiment_id`` is not of `names.experiment_id`, so it could mean others, too.
    """
    if not _EXPERIMENT.fullmatch(experiment_id):
        raise ValueError(f"expected letters, digits, '-' and '_', got {experiment_id!r}")
    return _credentials(keys, f"evaluator {experiment_id}", worker_rights(experiment_id))


def credentials_belong(keys: AccountKeys, credentials: str, experiment_id: str) -> bool:
    """Tell whether evaluators may go on with these credentials, because they would get the same.

    So not with those of other keys, another Experiment, or a version that gave other rights.
    """
    wanted = evaluator_credentials(keys, experiment_id)
    return hmac.compare_digest(credentials.encode(), wanted.encode())


def _credentials(keys: AccountKeys, name: str, rights: WorkerRights | None) -> str:
    # Who can derive this secret has the account's, and so could sign any user anyway.
    secret = hmac.digest(keys.account_key.secret, DERIVATION + name.encode(), "sha256")
    user = Key(Kind.USER, secret)
    return credentials_text(
        user_jwt(keys.account_key, user.public, name, keys.created, rights), user
    )
