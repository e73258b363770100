"""The bounds that a user may set on how runs are driven, with their defaults and their reasons."""

from dataclasses import dataclass, field

from orchestrator.core.polling import Backoff, Polling


@dataclass(frozen=True)
class Rules:
    """How the scheduler treats runs. Everything that repeats has a bound."""

    polling: Polling = field(default_factory=Polling)

    # Batches take minutes to a day, and one call looks at a hundred of them.
    batch_polling: Polling = field(
        default_factory=lambda: Polling(first_seconds=2.0, gap_seconds_max=60.0)
    )

    # Between two checks of a run whose webhook is waited for; None: there are no webhooks.
    webhook_gap_seconds: float | None = None
    backoff: Backoff = field(default_factory=Backoff)

    # The seconds of delay that one check is worth, to the learned policy. At 1, recorded runs of
    # a second are found 0.9 s late by 1.6 checks (backoff: 0.8 s by 3.1), those of 10 seconds 1.1 s
    # late by 1.7 (2.2 s by 5.9), and those of 5 minutes 11 s late by 12 (2.5 s by 58).
    check_price_seconds: float = 1.0

    # From the first create of a request to its end, retries and tool turns included. Deep research
    # takes tens of minutes; an hour ends a hung run without ending an honest one.
    deadline_seconds: float = 3_600.0

    # From the call that begins a run, or a turn of it, to its end or its wish for tools. What our
    # own tool handlers take is not in it: they have a limit of their own.
    run_deadline_seconds: float = float("inf")

    # From the start of the execution.
    execution_deadline_seconds: float = float("inf")

    # Nothing is created that might cost more.
    max_cost_usd: float = float("inf")
    max_tokens: float = float("inf")

    # Whether a call that may be paid for is left when its answer was lost, rather than sent again;
    # a create that can be looked for is looked for.
    gives_up_lost: bool = False

    # As many requests in a row that were refused for the same reason: the rest will be, too, unless
    # by an odd chance. 0 goes on whatever is refused.
    same_failures_max: int = 50

    # Failures of one call in a row, and new runs after a retryable failure. With a third of all
    # calls failing, 10 in a row happen to one request in 60,000.
    attempts_max: int = 10

    # Creates of one request whose answers can't be read; each is paid for.
    malformed_max: int = 3

    # Times that one request may be turned away by a rate limit. The bucket pauses in between, so
    # this many are only reached when the limit leaves no room at all.
    waits_max: int = 100

    # A run is paid for: its checks go on through ten minutes of a server in trouble
    # (20 failures at a backoff capped at 30 s).
    check_failures_max: int = 20

    # A run that was just created may take a moment to be visible everywhere.
    not_found_max: int = 3

    # Lists show a new run only after a while; until then a run that is not in its list is waited
    # for. Asked for by itself each time, every new run would cost two calls more.
    list_lag_seconds: float = 10.0

    # Failures in a row of a call that lists runs; then each is asked for by itself.
    list_failures_max: int = 5

    # How often a run may ask for tool outputs that the server has already accepted.
    stale_looks_max: int = 50

    # How often a run that expired on the server is started anew; each time costs what it costs.
    expired_runs_max: int = 2

    # Tool turns; a model that calls tools in a circle would go on for ever.
    turns_max: int = 20

    # How long a cancelled run may take to end before it is left alone
    # (`cancelling` that never becomes `cancelled` has been seen on real servers).
    cancel_grace_seconds: float = 30.0

    # A refused key or an empty account is known within milliseconds. Until the first call is
    # answered, or for this long, no second one is sent.
    trial_seconds: float = 2.0

    # As long as no server has ever answered, creates go out one at a time; after so many that found
    # no connection in a row (some 15 s, by the backoff) the execution stops instead of failing
    # request after request.
    unreached_max: int = 6

    # An execution that is stopped waits this long for the answers of creates that are out, to know
    # the ids of their runs.
    stop_grace_seconds: float = 2.0

    # From the first batch of a request to its end: three windows of 24 hours, so that what two
    # batches left undone is not given up.
    batch_deadline_seconds: float = 259_200.0

    # A batch that says nothing of its window has 24 hours, the only one there is. When it has not
    # ended an hour later, its server has forgotten it, and it is cancelled.
    batch_window_seconds: float = 86_400.0
    batch_late_seconds: float = 3_600.0

    # "up to 10 minutes", says the API reference of a batch that is being cancelled.
    batch_cancel_grace_seconds: float = 900.0

    # What one batch takes. 200 MB are the limit of the file; what is added to each line is only
    # estimated when it is packed.
    batch_lines_max: int = 50_000
    batch_inputs_max: int = 50_000
    batch_bytes_max: int = 190_000_000

    # What a line has around its body: custom_id, method, url, and the tools where there are some.
    batch_line_bytes: int = 200

    # Prompt tokens that all batches of a model may hold at a time; None: as the server's refusals
    # say ("enqueued token limit").
    batch_queue_tokens: int | None = None

    # While somebody else's batches fill the queue of a model, it is tried so often.
    batch_queue_retry_seconds: float = 300.0

    # A batch is closed when nothing more has come for it for a while, or after a minute.
    batch_idle_seconds: float = 2.0
    batch_open_seconds_max: float = 60.0

    # Fewer lines than this are not worth a batch: each is sent by itself, at the full price.
    batch_direct_below: int = 0

    # The name of the lane for checks and cancels when they have a limit of their own; None: they
    # share the lane of their model. Whether checks count against a model's limit is not documented.
    checks_lane: str | None = None
