"""Whether the webhooks of one API family arrive, judged by the ends of its runs.

A server that does not call is not told from one that has nothing to say, but by runs that have
ended without a word. So each end that a check finds is judged a little later: has its event come?
Whether events have stopped is asked of those ends only that lie after the last event that came in
time: what was lost while others arrived says nothing about now.

Two kinds of events are judged apart, because an endpoint may be subscribed to one of them only.
"""

from dataclasses import dataclass, field

from orchestrator.core.families import About

NEVER = float("inf")

# An event that comes later than this after a check has found the same was of no use. A delivery
# that works takes well under a second; the guide asks to answer it "within a few seconds".
GRACE_SECONDS = 5.0

# Ends after the last event in time of which no event told. Where a twentieth of all events is lost
# at random, three in a row are so one time in 8,000. Before the first event there is nothing that
# speaks for the endpoint, and one lost event proves nothing.
MISSES_MAX = 3
MISSES_MAX_UNPROVEN = 2

# More lost than heard is worse than polling; below so many ends that is chance. Counts are halved
# when there are a thousand, so that an endpoint of days is judged by its last hours.
LOST_MIN = 10
ENDS_REMEMBERED = 1_000

# Events in time in a row, for a family that polls to trust them again. Doubled with each fall, or
# an endpoint that hears half of all would be trusted every few runs.
HEARD_TO_RETURN = 3
HEARD_TO_RETURN_MAX = 48

# While nothing is heard one run is looked at after so long, then another one after twice as long.
# With an endpoint that is never called this costs seconds, with one that works a few calls in all.
PROBE_SECONDS = 10.0

# While events come in all the time, one look for so many of them asks for what was lost among them.
HEARD_PER_PROBE = 400

# A silence of so many times the usual one: by chance (events at random) it comes once in 3,000.
UNUSUAL_TIMES = 8
USUAL_WEIGHT = 1 / 8  # of the newest silence in the mean

# What rounding may take from a sum of parts.
ROUNDING = 1e-6


@dataclass(slots=True)
class Ear:
    """What is known of one kind of event, since it is relied on."""

    since: float = -NEVER
    heard: int = 0  # in time
    lost: int = 0
    heard_at: float = -NEVER  # the last one in time
    silence: float = 0.0  # ends since then that no event told of
    in_a_row: int = 0  # in time, and none lost between them
    is_deaf: bool = False

    @property
    def misses_max(self) -> int:
        return MISSES_MAX if self.heard else MISSES_MAX_UNPROVEN

    def hear(self, now: float) -> None:
        self.heard += 1
        self.heard_at = now
        self.silence = 0.0
        self.in_a_row += 1
        self._forget()

    def lose(self, earliest: float, latest: float) -> None:
        """No event has told of an end that lies between these times."""
        self.lost += earliest >= self.since
        self.silence += self.share_after(earliest, latest)
        self.in_a_row = 0
        self._forget()

    def share_after(self, earliest: float, latest: float) -> float:
        """How likely the end came after the last event: it is equally likely at any time."""
        if earliest >= self.heard_at:
            return 1.0
        return max(latest - self.heard_at, 0.0) / (latest - earliest) if latest > earliest else 0.0

    def why_deaf(self) -> str | None:
        """Why it is not to be relied on, in words; None when it is."""
        if self.silence >= self.misses_max - ROUNDING:
            since = "since the last one" if self.heard else "and none was ever heard"
            return f"the last {self.silence:.0f} runs ended without an event, {since}"
        if self.lost >= LOST_MIN and self.lost > self.heard:
            return f"{self.lost} of the last {self.lost + self.heard} ends had no event in time"
        return None

    def _forget(self) -> None:
        if self.heard + self.lost > ENDS_REMEMBERED:
            self.heard //= 2
            self.lost //= 2


@dataclass(slots=True)
class Ears:
    """The ears for one family. While one of them is deaf, its runs are polled.

    Attributes:
        gap_seconds_max: Between two looks at a run, whatever is heard of it.
        probe_at: When one of its runs is to be looked at because nothing is heard; endless while
            none waits for an event.
    """

    gap_seconds_max: float
    by_kind: dict[About, Ear] = field(default_factory=lambda: {about: Ear() for about in About})
    falls: int = 0
    probe_at: float = NEVER
    _probe_gap: float = PROBE_SECONDS
    _quiet_since: float = 0.0
    _heard_since_probe: int = 0
    _usual_quiet: float = 0.0

    @property
    def are_deaf(self) -> bool:
        return any(ear.is_deaf for ear in self.by_kind.values())

    def hear(self, about: About, now: float) -> str | None:
        """An event came in time; why the family is listened to again, when that is so now."""
        self._heard_since_probe += 1
        ear = self.by_kind[about]
        ear.hear(now)
        if self.probe_at < NEVER and not self.are_deaf:  # else nobody waited for it
            self._usual_quiet += USUAL_WEIGHT * (now - self._quiet_since - self._usual_quiet)
        self._begin_quiet(now)
        if not ear.is_deaf or ear.in_a_row < self._heard_to_return:
            return None
        why = f"{ear.in_a_row} events in a row came in time"
        # Another kind may have fallen silent with it, and not be sent again for a long time.
        for kind, other in self.by_kind.items():
            if other.is_deaf:
                self.by_kind[kind] = Ear(since=now)
        self.by_kind[about] = Ear(since=now, heard=1, heard_at=now)
        return why

    def lose(self, about: About, earliest: float, latest: float) -> str | None:
        """An end between these times had no event; why the family is polled from now on."""
        ear = self.by_kind[about]
        ear.lose(earliest, latest)
        why = ear.why_deaf()
        if why is None or ear.is_deaf:
            return None
        were_deaf = self.are_deaf
        ear.is_deaf = True
        self.falls += 1
        return None if were_deaf else why

    @property
    def _heard_to_return(self) -> int:
        doubled = HEARD_TO_RETURN << min(max(self.falls - 1, 0), 16)
        return min(doubled, HEARD_TO_RETURN_MAX)

    # Probes.

    def expect(self, now: float) -> None:
        """A run waits for an event."""
        if self.probe_at == NEVER:
            self._begin_quiet(now)

    def probed(self, now: float) -> None:
        """One of its runs is looked at now."""
        self._probe_gap = min(2 * self._probe_gap, self.gap_seconds_max)
        self.probe_at = now + self._probe_gap
        self._heard_since_probe = 0

    def rest(self) -> None:
        """None of its runs waits for an event."""
        self.probe_at = NEVER

    def suspect(self, earliest: float, latest: float, now: float) -> None:
        """An end was found that no event had told of: where its event is overdue, look on.

        What was lost was seldom lost alone, and a look that finds an end is not wasted. So one
        that is found leads to the next, until one finds a run at work.
        """
        overdue_at = (earliest + latest) / 2 + GRACE_SECONDS
        self.probe_at = min(self.probe_at, max(overdue_at, now))

    def _begin_quiet(self, now: float) -> None:
        self._quiet_since = now
        usual = max(PROBE_SECONDS, UNUSUAL_TIMES * self._usual_quiet)
        self._probe_gap = min(usual, self.gap_seconds_max)
        is_time = self._heard_since_probe >= HEARD_PER_PROBE
        self.probe_at = now if is_time else now + self._probe_gap
