"""An event loop that can be killed between any two of its steps, and what is left of it buried."""

import asyncio
import inspect
from asyncio import events, tasks
from contextlib import suppress

from support.virtual_loop import VirtualTimeLoop


class Killed(KeyboardInterrupt):
    """The process is no more. The one kind of error that no task keeps to itself."""


class MortalLoop(VirtualTimeLoop):
    """Calls `step` before each of its steps; what that raises ends it at once.

    It starts at any time, as the monotonic clocks of machines do.
    """

    def __init__(self, step, began_at):
        super().__init__()
        self._step = step
        self.advance(began_at)

    def _run_once(self):
        self._step()
        super()._run_once()


def bury(loop):
    """Take apart what a killed loop has left; nobody who is woken for it has any effect.

    Every coroutine is ended where it stands, again and again where it waits once more on its way
    out. The garbage collector would do the same at any time, and complain.
    """
    loop.set_exception_handler(lambda *_: None)
    events._set_running_loop(loop)
    try:
        while left := asyncio.all_tasks(loop):
            for task in left:
                _end(loop, task)
    finally:
        events._set_running_loop(None)
    loop.close()


def _end(loop, task):
    task._log_destroy_pending = False
    _end_unbegun(task.get_coro())
    tasks._unregister_task(task)
    tasks._enter_task(loop, task)
    try:
        with suppress(BaseException):
            while True:
                task.get_coro().throw(Killed())
    finally:
        tasks._leave_task(loop, task)


def _end_unbegun(coroutine):
    """A task that has not begun holds a coroutine of its own, which nobody would begin any more."""
    if inspect.getcoroutinestate(coroutine) is not inspect.CORO_CREATED:
        return
    for value in coroutine.cr_frame.f_locals.values():
        inner = getattr(value, "_coro", value)
        if inspect.iscoroutine(inner):
            inner.close()
