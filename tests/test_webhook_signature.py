"""Genuine webhook events are told from forged, stale and malformed ones."""

import datetime as dt
import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.webhooks import KEY, OTHER_SECRET, SECRET, body_of, headers_of, now

from orchestrator.apis.webhook_signature import TOLERANCE_SECONDS, verifier
from orchestrator.errors import WebhookSecretUnusable
from orchestrator.ports import SignatureFlaw, SignatureRefused

VERIFY = verifier([SECRET])
BODY = body_of()


def flaw_of(body, headers, arrived_at=None, verify=VERIFY):
    """Why an event is refused; None when it is not."""
    try:
        verify(body, headers, arrived_at)
    except SignatureRefused as refused:
        return refused.flaw
    return None


@given(body=st.text().map(str.encode), webhook_id=st.text("abc_-019", min_size=1))
def test_what_was_signed_is_genuine(body, webhook_id):
    """Any body in UTF-8 and any id."""
    assert flaw_of(body, headers_of(body, webhook_id)) is None


@given(place=st.data())
def test_one_other_byte_is_refused(place):
    """In the body, the id, the timestamp or the signature: not one bit may differ."""
    headers = headers_of(BODY)
    part = place.draw(st.sampled_from(["body", *headers]))
    raw = bytearray(BODY if part == "body" else headers[part].encode())
    first = len("v1,") if part == "webhook-signature" else 0
    position = place.draw(st.integers(first, len(raw) - 1))
    raw[position] ^= place.draw(st.integers(1, 127))
    changed = bytes(raw)
    if part == "webhook-signature" and chr(changed[position]).isspace():
        changed = changed[:position]  # what stands apart would be another signature
    if part == "body":
        assert flaw_of(changed, headers) is SignatureFlaw.FORGED
    else:
        assert flaw_of(BODY, headers | {part: changed.decode("latin-1")}) is not None


@given(st.binary(max_size=300), st.dictionaries(st.text(), st.text()))
def test_anything_at_all_is_refused_in_an_orderly_way(body, headers):
    """Whatever comes: it is refused, and nothing else is raised."""
    assert flaw_of(body, headers) is SignatureFlaw.MALFORMED
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    values = [*headers.values(), "1", "\ud800", "é", ""][:3]
    assert flaw_of(body, dict(zip(names, values, strict=False))) is not None
    assert flaw_of(body, headers_of(b"") | {"webhook-signature": "v1,é \ud800"}) is not None
    assert flaw_of(b"\xff" + body, headers_of(b"")) is SignatureFlaw.MALFORMED


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header(missing):
    """Without one of the three, or with an empty one, there is nothing to verify."""
    headers = headers_of(BODY)
    assert flaw_of(BODY, headers | {missing: ""}) is SignatureFlaw.MALFORMED
    del headers[missing]
    assert flaw_of(BODY, headers) is SignatureFlaw.MALFORMED


@pytest.mark.parametrize("timestamp", ["soon", "1.5", "", "9" * 16, "9" * 5000, "-" * 20, "nan"])
def test_a_timestamp_that_is_none(timestamp):
    """It is no matter of age."""
    headers = headers_of(BODY) | {"webhook-timestamp": timestamp}
    assert flaw_of(BODY, headers) is SignatureFlaw.MALFORMED


def test_age():
    """Genuine events are good for five minutes, both ways, and stale after that."""
    for age in (0, 250, -250):
        assert flaw_of(BODY, headers_of(BODY, timestamp=now() - age)) is None
    for age in (310, -310, 10**8, -(10**12)):
        stale = headers_of(BODY, timestamp=now() - age)
        assert flaw_of(BODY, stale) is SignatureFlaw.STALE


def test_a_forged_event_is_not_called_stale():
    """A count of stale events speaks of clocks and replays, not of strangers."""
    headers = headers_of(BODY, timestamp=now() - 10**6, key=b"no")
    assert flaw_of(BODY, headers) is SignatureFlaw.FORGED


@given(waited=st.integers(0, 14 * 86_400), age=st.integers(-1000, 1000))
def test_age_when_it_came_into_a_queue(waited, age):
    """How long an event has waited since it arrived does not count, and helps no old one."""
    arrived_at = now() - waited
    headers = headers_of(BODY, timestamp=arrived_at - age)
    fresh = abs(age) <= TOLERANCE_SECONDS
    expected = None if fresh else SignatureFlaw.STALE
    assert flaw_of(BODY, headers, float(arrived_at) + 0.9) is expected


def test_several_secrets():
    """While secrets are rotated, an event signed with any of them is genuine."""
    headers = headers_of(BODY)
    assert flaw_of(BODY, headers, verify=verifier([OTHER_SECRET, SECRET])) is None
    assert flaw_of(BODY, headers, verify=verifier([SECRET, OTHER_SECRET])) is None
    assert flaw_of(BODY, headers, verify=verifier([OTHER_SECRET])) is SignatureFlaw.FORGED


def test_headers_as_servers_write_them():
    """Title case, several signatures, other versions first."""
    headers = headers_of(BODY)
    title = {name.title(): value for name, value in headers.items()}
    assert flaw_of(BODY, title) is None
    good = headers["webhook-signature"]
    many = f"v1a,AAAA v1,{'A' * 43}= {good} v2,BBBB"
    assert flaw_of(BODY, headers | {"webhook-signature": many}) is None
    others = f"v1a,AAAA v1,{'A' * 43}="
    assert flaw_of(BODY, headers | {"webhook-signature": others}) is SignatureFlaw.FORGED


def test_a_secret_without_a_prefix_is_the_key_itself():
    """As in the SDK; and what stands around a secret in a file or a variable is left out."""
    plain = KEY.decode()
    assert flaw_of(BODY, headers_of(BODY), verify=verifier([plain])) is None
    assert flaw_of(BODY, headers_of(BODY), verify=verifier([f" {SECRET}\n"])) is None


@pytest.mark.parametrize(
    "secret", ["", " \n", "whsec_", "whsec_no base64", "whsec_abc", "whsec_a-_b", "two\nlines"]
)
def test_secrets_that_can_not_be_used(secret):
    """They are refused when they are given, by their position, and are not shown."""
    with pytest.raises(WebhookSecretUnusable) as refused:
        verifier([SECRET, secret])
    assert "Webhook secret 2 of 2" in str(refused.value)
    assert len(secret) < 8 or secret not in str(refused.value)
    assert secret not in refused.value.facts.values() or not secret
    with pytest.raises(WebhookSecretUnusable):
        verifier([])


def test_secrets_are_not_shown():
    """Neither by repr nor in what is raised."""
    assert SECRET not in repr(VERIFY)
    assert KEY.decode() not in repr(VERIFY)
    with pytest.raises(SignatureRefused) as refused:
        VERIFY(BODY, {"webhook-id": "1", "webhook-timestamp": "1", "webhook-signature": "v1,x"})
    assert repr(refused.value) == "SignatureRefused(<SignatureFlaw.FORGED: 'forged'>)"


@pytest.mark.slow  # the libraries take half a second to import
@pytest.mark.parametrize("library", ["standardwebhooks", "svix"])
def test_events_signed_by_others(library):
    """What the libraries of the specification sign is genuine, and they agree on what we sign."""
    webhook = importlib.import_module(library).Webhook(SECRET)
    moment = dt.datetime.fromtimestamp(now(), dt.UTC)
    headers = headers_of(BODY, timestamp=int(moment.timestamp()))
    signed = webhook.sign("wh_1", moment, BODY.decode())
    assert flaw_of(BODY, headers | {"webhook-signature": signed}) is None
    webhook.verify(BODY.decode(), headers)  # raises where it does not agree
