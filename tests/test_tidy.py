"""The house stays tidy: sizes, docstrings, names, and what may lie at the top of the repository."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "orchestrator").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SOURCES = [path for name in ("orchestrator", "jobs") for path in (ROOT / name).rglob("*.py")]

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100

TOP_LEVEL = {
    "pyproject.toml",
    "orchestrator",
    "jobs",
    "tests",
    "benchmarks",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    ".ci",
    ".github",
    ".gitignore",
}

BANNED_NAMES = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}

# Put together here, or this file would be the one that has them.
NOTES_FOR_LATER = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"]) + r")\b")
FOREIGN_PLACES = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "conda" + ".anaconda.org",
    "registry.npm" + "js.org",
    "/" + "work/",
    "/" + "root/",
    "/" + "tmp/",
    "file:" + "//",
]

# A reason is a word or more after the code, behind a dash or another hash.
IGNORE = re.compile(r"#\s*(?:noqa|type:\s*ignore|pragma)\b(?P<rest>.*)$")
REASON = re.compile(r"\s(?:-|#)\s*\w+")

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def place(path, line=None):
    """Where something is, to be clicked on."""
    name = str(path.relative_to(ROOT))
    return name if line is None else f"{name}:{line}"


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def tracked():
    """What git keeps or would keep, as paths below the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: what git keeps can't be told")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    return [path for path in paths if (ROOT / path).is_file()]


def test_there_is_something_to_look_at():
    """The walks below find the package, the tests and the jobs."""
    assert len(PACKAGE) > 50
    assert len(TESTS) > 20
    assert any("jobs" in path.parts for path in SOURCES)


def test_files_fit_in_the_head():
    """No file of the package has more than 400 lines."""
    lines = {place(path): len(path.read_text().splitlines()) for path in PACKAGE}
    assert {name: count for name, count in lines.items() if count > FILE_LINES_MAX} == {}


def test_functions_fit_on_a_screen():
    """No function of the package has more than 70 lines, its decorators apart."""
    long = {}
    for path in PACKAGE:
        for node in ast.walk(parsed(path)):
            if isinstance(node, FUNCTIONS):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long[place(path, node.lineno)] = lines
    assert long == {}


def test_lines_fit_side_by_side():
    """No line has more than 100 columns, the reason of an ignore apart (ruff counts so too)."""
    wide = [
        place(path, number)
        for path in {*PACKAGE, *TESTS, *SOURCES}
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(IGNORE.sub("", line).rstrip()) > COLUMNS_MAX
    ]
    assert wide == []


def test_files_say_what_they_are_for():
    """Every file of the package and of the jobs opens with a docstring."""
    silent = [place(path) for path in SOURCES if not ast.get_docstring(parsed(path))]
    assert silent == []


def test_tests_say_what_they_prove():
    """Every test has a docstring, and its first line is a sentence."""
    silent = []
    for path in TESTS:
        for node in ast.walk(parsed(path)):
            if isinstance(node, FUNCTIONS) and node.name.startswith("test_"):
                said = (ast.get_docstring(node) or "").split("\n\n")[0].rstrip()
                if not said.endswith((".", "?", "!")):
                    silent.append(place(path, node.lineno))
    assert silent == []


def test_names_say_what_is_inside():
    """No module or folder has a name that could hold anything."""
    vague = [
        place(path)
        for path in {*PACKAGE, *TESTS, *SOURCES}
        if BANNED_NAMES & {path.stem, *path.relative_to(ROOT).parts}
    ]
    assert vague == []


def test_nothing_is_left_for_later():
    """No note to oneself in any file: what is missing is said in the README."""
    noted = [
        place(ROOT / path, number)
        for path in tracked()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if NOTES_FOR_LATER.search(line)
    ]
    assert noted == []


def test_nothing_points_to_one_machine_or_one_registry():
    """A clone works anywhere: no registry's host and no path of somebody's machine."""
    found = [
        f"{place(ROOT / path, number)}: {foreign}"
        for path in tracked()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        for foreign in FOREIGN_PLACES
        if foreign in line
    ]
    assert found == []


def test_the_top_level_is_as_designed():
    """A visitor sees a handful of names, and no lock file among them."""
    assert {path.parts[0] for path in tracked()} <= TOP_LEVEL


@pytest.mark.parametrize(
    ("line", "is_told"),
    [
        ("x = 1  # noqa: S101 - a test", True),
        ("x = 1  # noqa: S101 - HTTP", True),
        ("x = 1  # noqa: S101 # a test", True),
        ("x = 1  # type: ignore[misc]  # pydantic's own", True),
        ("x = 1  # noqa: S101", False),
        ("x = 1  # type: ignore[misc]", False),
        ("x = 1  # noqa: S101, PLR2004", False),
        ("x = 1  # nothing is ignored here", True),
    ],
)
def test_a_reason_is_told_from_none(line, is_told):
    """The test below sees what is no reason."""
    assert has_its_reason(line) == is_told


def test_every_ignore_has_its_reason():
    """Whoever turns a checker off says why, on the same line."""
    bare = [
        place(path, number)
        for path in {*PACKAGE, *SOURCES, *TESTS} - {Path(__file__)}
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if not has_its_reason(line)
    ]
    assert bare == []


def has_its_reason(line):
    """Whether a line ignores nothing, or says why it does."""
    found = IGNORE.search(line)
    return found is None or REASON.search(found["rest"]) is not None


def text_of(path):
    """The text of a tracked file; none of a binary one."""
    content = (ROOT / path).read_bytes()
    return "" if b"\0" in content else content.decode("utf-8", "replace")
