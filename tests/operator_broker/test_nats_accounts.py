"""Keys, tokens and credentials: the same bytes for the same keys, strictly read, never shown."""

import base64
import hashlib
import json

import pytest
from nacl.signing import VerifyKey

from kubevo_core import names
from kubevo_operator.nats_accounts import (
    KeysUnusable,
    broker_config,
    coordinator_credentials,
    credentials_belong,
    evaluator_credentials,
)
from kubevo_runtime.bus import worker_rights
from kubevo_runtime.nkey import Key, Kind

EXPERIMENT = "cartpole-1a2b3c4d"
# The longest that a name of 52 characters and a whole uid can give.
LONGEST = names.experiment_id("x" * 52, "f" * 32)


def claims_of(token):
    header, claims, signature = token.split(".")
    padded = [part + "=" * (-len(part) % 4) for part in (header, claims, signature)]
    decoded = [base64.urlsafe_b64decode(part) for part in padded]
    document = json.loads(decoded[1])
    issuer = document["iss"]
    public = base64.b32decode(issuer + "=" * (-len(issuer) % 8))[1:33]
    VerifyKey(public).verify(f"{header}.{claims}".encode(), decoded[2])
    assert json.loads(decoded[0]) == {"typ": "JWT", "alg": "ed25519-nkey"}
    return document


def token_of(credentials):
    return credentials.splitlines()[1]


@pytest.fixture
def keys(make_keys):
    return make_keys(1)


def test_a_key_is_the_text_that_nats_makes_of_it():
    key = Key(Kind.USER, bytes(range(32)))
    assert key.seed == "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y"
    assert key.public == "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK"
    assert Key.parse(key.seed, Kind.USER) == key


@pytest.mark.parametrize(("kind", "start"), [("OPERATOR", "O"), ("ACCOUNT", "A"), ("USER", "U")])
def test_a_keys_first_letters_tell_what_it_is(kind, start):
    key = Key(Kind[kind], bytes(32))
    assert (key.seed[:2], len(key.seed)) == ("S" + start, 58)
    assert (key.public[:1], len(key.public)) == (start, 56)
    assert Kind[kind].prefix == "S" + start


@pytest.mark.parametrize(
    "seed",
    ["", "S", "é" * 58, "SU" + "A" * 56, Key(Kind.USER, bytes(32)).seed.lower(), "SU1" * 20],
)
def test_what_is_no_seed_is_refused_and_not_shown(seed):
    with pytest.raises(ValueError, match="expected an user's NATS seed") as refused:
        Key.parse(seed, Kind.USER)
    assert len(seed) < 3 or seed not in str(refused.value)


def test_a_seed_of_another_kind_is_refused(keys):
    with pytest.raises(ValueError, match=r"account's NATS seed \(SA.*of another kind \(SO"):
        Key.parse(keys.operator_key.seed, Kind.ACCOUNT)


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected 32 secret bytes, got 31"):
        Key(Kind.USER, bytes(31))


def test_the_same_keys_give_the_same_configuration_and_credentials(make_keys):
    one, same, other = make_keys(1), make_keys(1), make_keys(2)
    assert broker_config(one) == broker_config(same) != broker_config(other)
    assert coordinator_credentials(one) == coordinator_credentials(same)
    assert evaluator_credentials(one, EXPERIMENT) == evaluator_credentials(same, EXPERIMENT)
    assert evaluator_credentials(one, EXPERIMENT) != evaluator_credentials(other, EXPERIMENT)


def test_a_secret_gives_back_the_keys(keys):
    data = keys.secret_data()
    again = type(keys).from_secret_data({**data, "note": "eA=="}, "kubevo/keys")
    assert again == keys
    assert all(base64.b64decode(value) for value in data.values())


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"account.seed": None}, ["account.seed: expected a value, got none"]),
        ({"account.seed": "%%%"}, ["account.seed: expected base64 of a text"]),
        ({"operator.seed": base64.b64encode(b"\xff\xfe").decode()}, ["operator.seed: expected"]),
        (
            {"operator.seed": base64.b64encode(b"SO").decode()},
            ["got 2 characters that are no seed"],
        ),
        ({"created": "eA=="}, ["created: expected seconds since 1970"]),
        ({"created": None, "operator.seed": None}, ["created: expected a", "operator.seed: exp"]),
        ({"system-account.seed": "account.seed"}, ["seed of another account than account.seed"]),
        ({"operator.seed": "account.seed"}, ["operator's NATS seed (SO", "another kind (SA"]),
    ],
)
def test_a_secret_that_is_not_whole_is_refused_with_each_problem(keys, changes, problems):
    data = keys.secret_data()
    for name, value in changes.items():
        data[name] = data.get(value, value)
    data = {name: value for name, value in data.items() if value is not None}
    with pytest.raises(KeysUnusable, match="Secret kubevo/keys") as refused:
        type(keys).from_secret_data(data, "kubevo/keys")
    for problem in [*problems, "restore it from its backup"]:
        assert problem in str(refused.value)
    for key in (keys.operator_key, keys.account_key, keys.system_key):
        assert key.seed not in str(refused.value)


def test_an_empty_secret_is_refused(keys):
    with pytest.raises(KeysUnusable, match=r"account\.seed: expected a value, got none"):
        type(keys).from_secret_data(None, "kubevo/keys")


def test_no_representation_shows_a_seed(keys):
    for key in (keys.operator_key, keys.account_key, keys.system_key):
        assert key.seed not in repr(keys)
        assert repr(key.secret) not in repr(keys)


def test_the_brokers_part_holds_no_seed(keys):
    config = broker_config(keys)
    for key in (keys.operator_key, keys.account_key, keys.system_key):
        assert key.seed not in config
        assert key.public in config or key is keys.operator_key


def test_who_signs_whom(keys):
    config = broker_config(keys)
    operator = claims_of(config.splitlines()[0].split('"')[1])
    assert operator["iss"] == operator["sub"] == keys.operator_key.public
    assert operator["nats"]["system_account"] == keys.system_key.public
    account, system = (claims_of(line.split('"')[1]) for line in config.splitlines()[4:6])
    assert account["iss"] == system["iss"] == keys.operator_key.public
    assert (account["sub"], system["sub"]) == (keys.account, keys.system_key.public)
    assert account["nats"]["limits"]["disk_storage"] == -1
    assert "disk_storage" not in system["nats"]["limits"]
    user = claims_of(token_of(evaluator_credentials(keys, EXPERIMENT)))
    assert user["iss"] == keys.account
    assert user["nats"]["pub"]["allow"] == list(worker_rights(EXPERIMENT).publish)
    assert user["nats"]["sub"]["allow"] == [f"_INBOX_{EXPERIMENT}.>"]
    coordinator = claims_of(token_of(coordinator_credentials(keys)))
    assert "pub" not in coordinator["nats"]
    ids = {document["jti"] for document in (operator, account, system, user, coordinator)}
    assert len(ids) == 5


def test_no_token_ever_ends(keys):
    for credentials in (evaluator_credentials(keys, EXPERIMENT), coordinator_credentials(keys)):
        assert "exp" not in claims_of(token_of(credentials))


def test_credentials_belong_to_one_experiment_under_one_account(make_keys):
    keys = make_keys(1)
    mine = evaluator_credentials(keys, EXPERIMENT)
    assert credentials_belong(keys, mine, EXPERIMENT)
    assert not credentials_belong(make_keys(2), mine, EXPERIMENT)
    assert not credentials_belong(keys, mine, "other-1a2b3c4d")
    for other in ("", "é", mine[:-1], coordinator_credentials(keys)):
        assert not credentials_belong(keys, other, EXPERIMENT)


@pytest.mark.parametrize("identifier", ["", "*", ">", "a.b", "a b", "a-*", "a\n"])
def test_an_id_that_could_mean_others_gets_no_credentials(keys, identifier):
    with pytest.raises(ValueError, match="expected letters, digits"):
        evaluator_credentials(keys, identifier)


def test_the_longest_token_fits_into_the_line_that_a_server_reads(keys):
    token = token_of(evaluator_credentials(keys, LONGEST))
    assert len(LONGEST) == 85
    assert len(token) < 4096 - 600  # beside the rest of CONNECT: the signature, names, versions


# What the last release with other rights gave for these keys. Other bytes would replace every evaluator at an
# upgrade; that is right when the rights change, and only then.
GOLDEN = "3210893f54af5ed460e7eb35f27c6a2713b2bd6e538d6c786c6cb52c00b42d1d"


def test_credentials_stay_the_same_from_release_to_release(keys):
    text = evaluator_credentials(keys, EXPERIMENT) + broker_config(keys)
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN
