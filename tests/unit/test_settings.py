"""The settings: each missing or wrong one is one clear line that names its variable and shows no secret."""

from __future__ import annotations

import base64

import msgspec
import pytest

from core.errors import BadSetting
from core.settings import Settings, load, networks, to_environment, variable

SECRET, VAULT_KEY, SANDBOX = bytes(range(32)), bytes(range(32, 64)), b"sandbox secret, long enough"
WHOLE = {
    "FLASHPROOF_VALKEY_URL": "unix:///run/valkey.sock",
    "FLASHPROOF_POSTGRES_DSN": "postgresql://flashproof@host/flashproof",
    "FLASHPROOF_SECRET": base64.b64encode(SECRET).decode(),
    "FLASHPROOF_VAULT_KEY": base64.b64encode(VAULT_KEY).decode(),
}


def refused(name: str, value: str) -> str:
    """Return the one line said when this variable has this value."""
    with pytest.raises(BadSetting) as caught:
        load({**WHOLE, name: value})
    words = str(caught.value)
    assert name in words
    assert "\n" not in words
    return words


def encoded(raw: bytes) -> str:
    """Return bytes as the environment has them."""
    return base64.b64encode(raw).decode()


def test_the_four_that_must_be_set_are_enough() -> None:
    """Stops: a new setting without a default, which breaks every deployment on its update."""
    settings = load(WHOLE)
    assert (settings.secret, settings.vault_key, settings.sandbox_secret) == (SECRET, VAULT_KEY, b"")
    assert (settings.port, settings.ops_port, settings.work_ops_port) == (8080, 8081, 8082)


@pytest.mark.parametrize("name", sorted(WHOLE))
@pytest.mark.parametrize("empty", [None, "", "  \n"])
def test_a_missing_one_is_named_with_an_example_and_the_way_to_get_it(name: str, empty: str | None) -> None:
    """Stops: a KeyError, or an empty secret that is taken for a secret."""
    env = {key: value for key, value in WHOLE.items() if key != name}
    with pytest.raises(BadSetting, match=rf"^{name} is not set \(.+\)\. .*flashproof local") as caught:
        load(env if empty is None else {**env, name: empty})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["port", "ops_port", "work_ops_port"])
@pytest.mark.parametrize("value", ["http", "-1", "65536", "80.5", "1e3", "0x50", "²", "٣", "8_080", "99999999999999"])
def test_a_port_is_a_plain_number_that_a_port_can_be(field: str, value: str) -> None:
    """Stops: a traceback of int() for digits that are none ("²"), a port that only fails when it is bound."""
    assert "must be a port from 0 to 65535" in refused(variable(field), value)


@pytest.mark.parametrize("field", ["secret", "vault_key", "sandbox_secret"])
@pytest.mark.parametrize("value", ["not base64!", "AAA", "é" * 44, "AAAA\nAAAA", "A" * 43])
def test_a_secret_that_is_no_base64_is_refused_without_being_shown(field: str, value: str) -> None:
    """Stops: letters dropped in silence (another secret!), a traceback, and a secret in the boot log."""
    words = refused(variable(field), value)
    assert "is not base64" in words
    assert value not in words


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("secret", encoded(b"x" * 31), "at least 32 bytes"),
        ("vault_key", encoded(b"x" * 31), "exactly 32 bytes"),
        ("vault_key", encoded(b"x" * 33), "exactly 32 bytes"),
        ("sandbox_secret", encoded(b"x" * 15), "at least 16 bytes"),
        ("log_level", "loud", "must be debug, info, warning or error"),
        ("log_level", "INFO", "must be debug, info, warning or error"),
        ("valkey_url", "localhost:6379", "must begin with unix://"),
        ("valkey_url", "http://host", "must begin with unix://"),
        ("postgres_dsn", "host=localhost", "must begin with postgresql://"),
        ("postgres_dsn", "mysql://host", "must begin with postgresql://"),
        ("connections_per_address", "many", "must be a number from 0 to 50000"),
        ("connections_per_address", "-1", "must be a number from 0 to 50000"),
        ("connections_per_address", "50001", "must be a number from 0 to 50000"),
        ("trusted_networks", "10.0.0.1/8", "takes networks such as 10.0.0.0/8, or none"),
        ("trusted_networks", "10.0.0.0/8 none", "takes networks such as 10.0.0.0/8, or none"),
        ("trusted_networks", "balancer", "takes networks such as 10.0.0.0/8, or none"),
    ],
)
def test_a_wrong_one_says_what_it_must_be(field: str, value: str, says: str) -> None:
    """Stops: a shop that opens on a weak key or a wrong address and fails under its first buyers."""
    words = refused(variable(field), value)
    assert says in words
    assert "eHh4" not in words


def test_networks_are_parted_by_blanks_or_commas_and_none_is_none() -> None:
    """Stops: a list of which only the first counts; a word for nobody that means everybody."""
    assert [str(one) for one in networks("10.0.0.0/8, ::1/128 192.0.2.7")] == ["10.0.0.0/8", "::1/128", "192.0.2.7/32"]
    assert networks("none") == ()
    assert networks(load(WHOLE).trusted_networks)


def test_blanks_around_a_value_are_forgiven() -> None:
    """Stops: a secret that is another one because of the line end after it."""
    assert load({name: f" {value}\n" for name, value in WHOLE.items()}) == load(WHOLE)


def test_a_child_process_gets_the_same_settings() -> None:
    """Stops: workers with another secret than their parent; a setting forgotten on the way."""
    settings = load({**WHOLE, "FLASHPROOF_SANDBOX_SECRET": encoded(SANDBOX), "FLASHPROOF_PORT": "0"})
    odd = msgspec.structs.replace(settings, host="::1", pay_url="https://pay/", log_level="error", ops_port=1)
    for one in (settings, odd, load(WHOLE)):
        assert load(to_environment(one)) == one
    assert set(to_environment(settings)) == {variable(field) for field in Settings.__struct_fields__}
