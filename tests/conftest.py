import asyncio

from hypothesis import settings
from support.virtual_loop import VirtualTimeLoop

settings.register_profile("fast", max_examples=60, deadline=None)
settings.register_profile("thorough", max_examples=2_000, deadline=None)
settings.load_profile("fast")


def pytest_asyncio_loop_factories(config, item):
    if item.get_closest_marker("real_time"):
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualTimeLoop}
