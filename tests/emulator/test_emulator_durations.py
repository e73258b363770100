"""Where the emulator's durations come from: a number, a lognormal, a trace."""

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.emulator.chance import draw
from orchestrator.emulator.durations import Fixed, Lognormal, Trace, parse_durations
from orchestrator.emulator.mistakes import EmulatorMistake


def trace(tmp_path, text, column=""):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return parse_durations(f"{path}:{column}" if column else str(path))


@given(st.text(), st.integers())
def test_chance_is_strictly_between_0_and_1(text, number):
    """So every distribution can take it."""
    assert 0 < draw(text, number) < 1


def test_chance_is_fair():
    """Ten thousand draws fill ten boxes evenly."""
    boxes = [0] * 10
    for number in range(10_000):
        boxes[int(draw(1, number) * 10)] += 1

    assert all(box == pytest.approx(1000, abs=150) for box in boxes)


def test_a_lognormal_has_its_median_and_its_spread():
    """Half below the median, and 84 % below the median times e to the sigma."""
    durations = Lognormal(1.5, 0.6)
    values = [durations.seconds(draw(number)) for number in range(5_000)]

    assert median(values) == pytest.approx(1.5, rel=0.05)
    assert sum(value < 1.5 * 2.718**0.6 for value in values) / 5_000 == pytest.approx(
        0.84, abs=0.02
    )


def test_a_number_is_always_the_same():
    """`--durations 0.5`."""
    assert parse_durations("0.5") == Fixed(0.5)
    assert Fixed(0.5).seconds(0.1) == Fixed(0.5).seconds(0.9) == 0.5


def test_a_trace_gives_each_of_its_values():
    """Drawn by chance, all of them equally likely."""
    values = Trace([1.0, 2.0, 3.0])

    assert [values.seconds(chance) for chance in (0.01, 0.34, 0.67, 0.99)] == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("text", "column", "values"),
    [
        ("name,tokens,latency_s\na,5,1.5\nb,6,2\n", "", [1.5, 2]),
        ("tokens,evaluation_time_seconds\n5,1.5\n", "", [1.5]),
        ("endpoint,processing_ms\nx,250\n", "", [0.25]),
        ("name,tokens\na,5\n", "", [5]),
        ("1.5\n2.5\n", "", [1.5, 2.5]),
        ("a_s,b_s\n1,2\n,3\n", "", [1]),
        ("a_s,b_s\n1,2\n,3\n", "b_s", [2, 3]),
    ],
)
def test_a_column_of_seconds_is_found(tmp_path, text, column, values):
    """By its name, else the first that looks like seconds, else the first number."""
    assert list(trace(tmp_path, text, column).values_seconds) == values


@pytest.mark.parametrize(
    ("text", "column", "complaint"),
    [
        ("", "", "no durations in it"),
        ("a_s\n", "", "no durations in it"),
        ("a,b\nx,y\n", "", "no column of numbers"),
        ("a_s\n1\n", "b_s", "no column 'b_s'; there are a_s"),
        ("a_s\n1\nlong\n", "", "line 3: 'long' is no duration"),
        ("a_s\n-1\n", "", "line 2: '-1' is no duration"),
        ("a_s\ninf\n", "", "line 2: 'inf' is no duration"),
    ],
)
def test_a_trace_that_is_wrong_says_where(tmp_path, text, column, complaint):
    """File, line, and what is wrong with it."""
    with pytest.raises(EmulatorMistake, match=f"trace.csv.*{complaint}"):
        trace(tmp_path, text, column)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon", "no-such.csv"])
def test_what_is_no_duration_is_refused(text):
    """Neither a number of seconds nor a file."""
    with pytest.raises(EmulatorMistake, match="duration"):
        parse_durations(text)
