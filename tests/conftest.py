import asyncio
import gc

import pytest
from hypothesis import settings
from support.command import emulator_with_rules as start_emulator_with_rules
from support.virtual_loop import VirtualTimeLoop

settings.register_profile("fast", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=2_000, deadline=None)
settings.load_profile("fast")

# What is imported and collected stays to the end: looking through it for garbage, again and again,
# took a tenth of the suite's time.
gc.disable()


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def emulator_with_rules(tmp_path_factory):
    """One process for all tests of the command: it takes a second to start."""
    with start_emulator_with_rules(tmp_path_factory.mktemp("emulator")) as running:
        yield running


def pytest_asyncio_loop_factories(config, item):
    if item.get_closest_marker("real_time"):
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualTimeLoop}


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="the one to be simulated by tests/simulation")


@pytest.fixture
def seed(request):
    return request.config.getoption("--seed")
