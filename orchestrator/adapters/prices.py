"""What tokens cost, from the price list that comes with genai-prices.

Rules:

- Nothing goes out to the network: the list is read as the data that is installed with the package,
  never through its updater, which is the only part of it that could fetch a newer one.
- OpenAI's own price counts first, then that of the provider that the name begins with
  ("anthropic/..."), then that of the model's maker, then OpenRouter's, a market price, then that
  of whoever sells a model so named. So the price of an open model that runs on a machine of your
  own is what others ask for it.
- Tokens only. What else a server may charge for (searches, audio by the hour, a faster tier) is not
  in `Usage` and so not in the price.
- A model's price is the one in force when it was first asked for in this process.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Self

from genai_prices import Usage as PricedUsage
from genai_prices import data
from genai_prices.types import ModelInfo, Provider, TieredPrices

from orchestrator.core.model import NO_USAGE, Request, Usage
from orchestrator.errors import ModelUnpriced, RequestUnusable

# No model's name is longer, and matching takes the longer the longer the name is.
NAME_CHARACTERS_MAX = 300

# Models whose price is remembered; an execution knows a handful.
MODELS_REMEMBERED_MAX = 200

# Servers may say anything; a number that is no float must not end an execution.
TOKENS_MAX = 10**15

TOKENS_PER_PRICE = 1_000_000

_PROVIDERS = {provider.id: provider for provider in data.providers}
_OPENAI = _PROVIDERS["openai"]
_OPENROUTER = _PROVIDERS["openrouter"]
_NOTHING = PricedUsage(input_tokens=0, output_tokens=0)


def price_of(model: str, usage: Usage) -> float | None:
    """What this usage costs in USD; None when no price is known for the model.

    Cached input tokens cost what the list says for them, and as much as others where it is silent.
    Where a price depends on the length of the input, the usage is taken for that of one call.
    """
    if len(model) > NAME_CHARACTERS_MAX:
        return None
    prices = _prices_of(model)
    if prices is None:
        return None
    sent = _count(usage.input_tokens)
    cached = min(_count(usage.cached_tokens), sent)
    return (
        (sent - cached) * prices.sent.at(sent)
        + cached * prices.cached.at(sent)
        + _count(usage.output_tokens) * prices.received.at(sent)
    ) / TOKENS_PER_PRICE


def require_prices(models: Iterable[str]) -> None:
    """Under a limit of the cost every model has to have a price.

    Raises:
        ModelUnpriced: The list knows no price for some.
    """
    if unpriced := [model for model in models if price_of(model, NO_USAGE) is None]:
        raise ModelUnpriced(models=", ".join(sorted(unpriced)))


def require_price(request: Request) -> None:
    """Under a limit of the cost, what has no price is not sent.

    Raises:
        RequestUnusable: No price is known for its model.
    """
    if price_of(request.model, NO_USAGE) is None:
        name, problem = f" (custom_id {request.custom_id!r})", f"{request.model!r} has no price"
        cure = "Limit the tokens instead of the cost, or name a model whose price is known."
        raise RequestUnusable(custom_id=name, problem=problem, cure=cure)


@dataclass(frozen=True, slots=True)
class _Price:
    """USD per million tokens, by the length of the input: (more than so many tokens, price)."""

    usual: float
    tiers: tuple[tuple[int, float], ...] = ()

    @classmethod
    def read(cls, price: Decimal | TieredPrices | None) -> Self | None:
        if price is None:
            return None
        if isinstance(price, TieredPrices):
            tiers = tuple((tier.start, float(tier.price)) for tier in price.tiers)
            return cls(float(price.base), tiers)
        return cls(float(price))

    def at(self, input_tokens: int) -> float:
        for start, price in reversed(self.tiers):
            if input_tokens > start:
                return price
        return self.usual


@dataclass(frozen=True, slots=True)
class _Prices:
    sent: _Price
    cached: _Price
    received: _Price


_FREE = _Price(0)


@lru_cache(MODELS_REMEMBERED_MAX)
def _prices_of(name: str) -> _Prices | None:
    for provider, model in _sellers_of(name.strip().lower()):
        # Asking for the price of nothing gives the prices in force now.
        in_force = model.calc_price(_NOTHING, provider).model_price
        sent = _Price.read(in_force.input_mtok)
        if sent is None:
            if provider is _OPENAI and not vars(in_force):  # moderation is free there
                return _Prices(_FREE, _FREE, _FREE)
            continue  # by the hour, by the page, by subscription: no price per token
        return _Prices(
            sent=sent,
            cached=_Price.read(in_force.cache_read_mtok) or sent,
            received=_Price.read(in_force.output_mtok) or _FREE,  # embeddings have none
        )
    return None


def _sellers_of(name: str) -> Iterator[tuple[Provider, ModelInfo]]:
    for provider, wanted in _places_to_ask(name):
        model = provider.find_model(wanted, all_providers=data.providers)
        if model is not None:
            yield provider, model


def _places_to_ask(name: str) -> Iterator[tuple[Provider, str]]:
    """Providers and the name that each would know the model by, the best first."""
    yield _OPENAI, name
    prefix, _, rest = name.partition("/")
    if rest and prefix in _PROVIDERS:
        yield _PROVIDERS[prefix], rest
    for provider in data.providers:
        if provider.model_match is not None and provider.model_match.is_match(name):
            yield provider, name
    yield _OPENROUTER, name
    for provider in data.providers:
        yield provider, name


def _count(tokens: int) -> int:
    return min(max(tokens, 0), TOKENS_MAX)
