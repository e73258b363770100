"""Loads a user's tools.py from wherever it is, and finds the tools in it."""

import importlib
import inspect
import reprlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from orchestrator.adapters.tools.signature import Handler
from orchestrator.errors import ToolsUnreadable

_CURE = "Correct the file and start again."

# Modules beside the last tools file that was loaded. Another job may have modules of the same
# names, and Python would give it these.
_siblings: set[str] = set()


def load_tools(path: Path) -> list[Handler]:
    """The tools in a Python file: its `TOOLS`, or else its public functions in source order.

    The file can import the modules beside it, at its top: its folder is on `sys.path` only while
    it loads. Functions that it imports are not its tools, nor are names with an underscore.

    Raises:
        ToolsUnreadable: The file can't be read or run, or there is no tool in it.
    """
    if not path.is_file():
        problem = "it is a folder" if path.is_dir() else "there is no such file"
        raise ToolsUnreadable(path=path, problem=problem, cure="Give a Python file.")
    return _tools_in(_module(path), path)


def _module(path: Path) -> ModuleType:
    """Run the file as a module of a private name, so that it can't hide another one."""
    resolved = path.resolve()
    name = f"_orchestrator_tools_{sha256(str(resolved).encode()).hexdigest()[:16]}"
    spec = spec_from_loader(name, loader := SourceFileLoader(name, str(resolved)))
    if spec is None:  # never with a loader of our own; the type checker can't know
        raise ToolsUnreadable(path=path, problem="it is no Python file", cure=_CURE)
    module = module_from_spec(spec)
    # Dataclasses and pydantic look up the module of a class here, also long after loading.
    sys.modules[name] = module
    try:
        with _importable(resolved.parent):
            loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _unreadable(path, resolved, error) from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Make the modules in a folder importable for a while, and those of the last folder gone."""
    while _siblings:
        sys.modules.pop(_siblings.pop(), None)
    before = set(sys.modules)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        _siblings.update(
            name
            for name in set(sys.modules) - before
            if folder in Path(getattr(sys.modules[name], "__file__", None) or "/").parents
        )


def _unreadable(path: Path, resolved: Path, error: BaseException) -> ToolsUnreadable:
    place, cure = _place(resolved, error), _CURE
    if isinstance(error, SyntaxError):
        what = error.msg
    else:
        what = ": ".join(part for part in (type(error).__name__, str(error)) if part)
    if isinstance(error, ImportError):
        cure = "Install what is missing, or put the module beside the file."
    elif isinstance(error, OSError) and error.filename == str(resolved):
        cure = "Check that you may read it."
    return ToolsUnreadable(path=path, problem=f"{place}: {what}", cure=cure)


def _place(resolved: Path, error: BaseException) -> str:
    """The file and line to look at: the last one in the user's own folder."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}"
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if resolved.parent in Path(frame.filename).parents
    ]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else resolved.name


def _tools_in(module: ModuleType, path: Path) -> list[Handler]:
    if "TOOLS" in vars(module):
        return _listed(module.TOOLS, path)
    own = [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    if not own:
        problem = f"{path.name}, line 1: there is no public function in it"
        cure = "Write the tools as functions, or list them in TOOLS."
        raise ToolsUnreadable(path=path, problem=problem, cure=cure)
    return list(dict.fromkeys(own))  # a function with two names is one tool


def _listed(listed: object, path: Path) -> list[Handler]:
    cure = "Write TOOLS = [one_function, another]."
    if not isinstance(listed, list | tuple) or not listed:
        problem = f"{path.name}: TOOLS is not a list of functions, or it is empty"
        raise ToolsUnreadable(path=path, problem=problem, cure=cure)
    for each in listed:
        if not callable(each):
            problem = f"{path.name}: TOOLS contains {reprlib.repr(each)}, which can't be called"
            raise ToolsUnreadable(path=path, problem=problem, cure=cure)
    return list(listed)
