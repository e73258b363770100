"""Prices come from the list that is installed, agree with it, and never end an execution."""

import math
import threading
from time import perf_counter

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price, data
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters import prices
from orchestrator.adapters.prices import price_of
from orchestrator.core.model import NO_USAGE, Usage

OPENAI_MODELS = ["gpt-4o", "gpt-4o-mini", "gpt-5.2", "o4-mini", "text-embedding-3-small"]


def listed(model, usage, provider):
    counted = PricedUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
    )
    return float(calc_price(counted, model, provider_id=provider).total_price)


@st.composite
def usages(draw):
    sent = draw(st.integers(0, 2_000_000))
    return Usage(sent, draw(st.integers(0, 200_000)), draw(st.integers(0, sent)))


@given(st.sampled_from(OPENAI_MODELS), usages())
def test_same_as_the_list(model, usage):
    """Our arithmetic and that of the package that brings the list give the same price."""
    assert math.isclose(price_of(model, usage), listed(model, usage, "openai"), abs_tol=1e-12)


@given(usages())
def test_prices_by_length(usage):
    """A model that costs more for long inputs is priced by the length of the input."""
    name = "gemini-2.5-pro"
    google = next(provider for provider in data.providers if provider.id == "google")
    in_force = google.find_model(name).calc_price(PricedUsage(input_tokens=0), google).model_price
    assert "TieredPrices" in type(in_force.input_mtok).__name__, "take another model for this test"
    assert math.isclose(price_of(name, usage), listed(name, usage, "google"), abs_tol=1e-12)


def test_price_at_the_edge():
    """The dearer price begins above the length that the list names, for all of the input."""
    name, edge = "gemini-2.5-pro", 200_000
    last, first = price_of(name, Usage(edge)), price_of(name, Usage(edge + 1))
    assert math.isclose(last, listed(name, Usage(edge), "google"))
    assert first > 1.5 * last


def test_cached_tokens_are_cheaper():
    """Cached input is priced as cached, and never counted twice."""
    fresh, cached = Usage(1_000, 0, 0), Usage(1_000, 0, 1_000)
    assert 0 < price_of("gpt-4o", cached) < price_of("gpt-4o", fresh)


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-5.2-20251211", "gpt-5.2"),
        ("openai/gpt-4o-mini", "gpt-4o-mini"),
        ("GPT-4o", "gpt-4o"),
        (" gpt-4o ", "gpt-4o"),
        ("anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("mistral/mistral-large-latest", "mistral-large-latest"),
    ],
)
def test_other_names_of_a_model(name, same_as):
    """Dated names, and names that begin with the provider, cost what the model costs."""
    usage = Usage(1_000, 100)
    assert price_of(name, usage) == price_of(same_as, usage) > 0


def test_models_of_others():
    """A model that OpenAI does not sell has the price of somebody who does."""
    assert price_of("google/gemma-3-4b-it", Usage(1_000, 100)) > 0
    assert price_of("meta-llama/llama-3.1-8b-instruct", Usage(1_000, 100)) > 0


def test_moderation_is_free():
    """Moderation costs nothing at OpenAI, which is not the same as an unknown price."""
    assert price_of("omni-moderation-latest", Usage(1_000)) == 0.0


@pytest.mark.parametrize(
    "name", ["", " ", "/", "openai/", "model-x", "my-deployment", "x" * 10_000]
)
def test_unknown(name):
    """A model that nobody lists has no price, also when nothing was used."""
    assert price_of(name, Usage(1_000)) is None
    assert price_of(name, NO_USAGE) is None


def test_priced_by_something_else_than_tokens():
    """A model that is paid by the hour has no price per token, rather than none at all to pay."""
    assert price_of("whisper-1", Usage(1_000)) is None


@given(st.text(st.characters()), st.integers(), st.integers(), st.integers())
def test_never_raises(name, sent, received, cached):
    """Odd names and impossible numbers from a server give a price or none, never an error."""
    for model in (name, f"{name}/gpt-4o", "gpt-4o"):
        price = price_of(model, Usage(sent, received, cached))
        assert price is None or 0 <= price < math.inf
    assert price_of("gpt-4o", Usage(10**400, 10**400, 10**400)) < math.inf


def test_bounded_memory():
    """What is remembered stays small when every request names another model."""
    for number in range(prices.MODELS_REMEMBERED_MAX + 50):
        price_of(f"made-up-{number}", Usage(1))
    assert prices._prices_of.cache_info().currsize <= prices.MODELS_REMEMBERED_MAX


def test_cheap_and_alone():
    """A million results are priced in seconds, and no thread fetches anything meanwhile."""
    price_of("gpt-4o", Usage(1))
    before = set(threading.enumerate())
    started = perf_counter()
    for number in range(10_000):
        price_of("gpt-4o", Usage(number, number))
    # 1.4 microseconds each on a slow machine; 20 is what an execution can bear.
    assert (perf_counter() - started) / 10_000 < 20e-6
    assert set(threading.enumerate()) <= before


def test_no_network(monkeypatch):
    """A price that was never asked for is found without opening a socket."""

    def refused(*args, **kwargs):
        message = "a socket was opened"
        raise AssertionError(message)

    monkeypatch.setattr("socket.socket", refused)
    prices._prices_of.cache_clear()
    assert price_of("gpt-4o", Usage(1_000)) > 0
