"""How servers that speak this API differ from OpenAI's own; each can be switched on by itself.

Where two contradict one another, the sharper one wins; it is named where the weaker one is listed.
The lines of a batch are answered without any of these; what is in the files has its own.
"""

from collections.abc import Collection
from enum import StrEnum

from orchestrator.emulator.mistakes import EmulatorMistake


class Deviation(StrEnum):
    """What a server does otherwise; the first word of each is the API that it touches."""

    # Error bodies are {"detail": message}: neither code nor type.
    ANY_PLAIN_ERRORS = "any_plain_errors"
    # A run, thread, session or batch that is not there is answered 400 (or 500, which wins)
    # instead of 404. A place that the server does not have at all is 404 still.
    ANY_MISSING_IS_400 = "any_missing_is_400"
    ANY_MISSING_IS_500 = "any_missing_is_500"
    # After a 400 the connection looks alive, and is reset when the next call on it begins.
    ANY_RESET_AFTER_400 = "any_reset_after_400"
    # One in 20 answers (200) to retrieve and list calls ends in the middle.
    ANY_BROKEN_JSON = "any_broken_json"

    # `background` is ignored: create answers when the response is over, and there is neither
    # retrieve nor cancel (404). It can be continued all the same.
    RESPONSES_NO_BACKGROUND = "responses_no_background"
    # Create answers as a stream of events, background or not, unless "stream" is false.
    RESPONSES_STREAMS = "responses_streams"
    # Cancelling what is over is answered with a `cancelled` response or with a 409, by response;
    # it stays what it was. Nothing of it is left with responses_no_background.
    RESPONSES_CANCEL_AFTER_END = "responses_cancel_after_end"

    ASSISTANTS_STUCK_CANCELLING = "assistants_stuck_cancelling"  # `cancelling` for ever
    ASSISTANTS_NO_CREATE_AND_RUN = "assistants_no_create_and_run"  # POST /threads/runs is 404
    ASSISTANTS_PLAIN_IDS = "assistants_plain_ids"  # ids without prefix
    ASSISTANTS_FLOAT_TIMES = "assistants_float_times"  # times as floats, with fractions
    ASSISTANTS_NULLS = "assistants_nulls"  # usage, expires_at and metadata are null everywhere
    # Lists of messages come in an order of their own, whatever is asked for; pages fit together.
    ASSISTANTS_MESSAGES_SHUFFLED = "assistants_messages_shuffled"
    ASSISTANTS_BUSY_THREAD_ACCEPTED = "assistants_busy_thread_accepted"  # runs, not messages
    ASSISTANTS_SECOND_SUBMIT_404 = "assistants_second_submit_404"  # to a run that does not wait
    # Cancelling with a JSON content type and no body, as OpenAI's client has it, is a 400.
    ASSISTANTS_CANCEL_WANTS_NO_BODY = "assistants_cancel_wants_no_body"

    # Create answers when the turn has ended or needs an action; streams begin at once as ever.
    SESSIONS_BLOCKING_CREATE = "sessions_blocking_create"
    SESSIONS_NO_TURN_ID = "sessions_no_turn_id"  # required_actions without turn_id
    # Function calls among required_actions have an object as arguments, where it is valid JSON.
    SESSIONS_ARGUMENTS_OBJECT = "sessions_arguments_object"
    # Create waits for a turn that fails (without asking for anything first) and is answered 502;
    # the session is there, idle. Other turns are as they are; streams too.
    SESSIONS_FAILED_TURN_502 = "sessions_failed_turn_502"
    SESSIONS_PLAIN = "sessions_plain"  # ids that are UUIDs, times as ISO texts
    # 429 for a thirteenth live session: one that is not deleted and not idle for 30 s.
    SESSIONS_LIVE_MAX = "sessions_live_max"

    BATCH_BLANK_ERROR_ID = "batch_blank_error_id"  # error_file_id is "" where there is no file
    BATCH_EMPTY_ERROR_FILE = "batch_empty_error_file"  # an error file although nothing failed; wins
    BATCH_BODY_AS_TEXT = "batch_body_as_text"  # response.body in the output is JSON in a string
    BATCH_NO_OUTPUT_ID = "batch_no_output_id"  # completed, with output_file_id null all the same
    BATCH_REFUSED_IN_OUTPUT = "batch_refused_in_output"  # lines with a 400 in the output file
    BATCH_NO_COUNTS_ON_FAILURE = "batch_no_counts_on_failure"  # failed, request_counts null
    BATCH_NO_RESPONSES = "batch_no_responses"  # /v1/responses is no endpoint for batches

    WEBHOOKS_TITLE_CASE = "webhooks_title_case"  # header names as in Webhook-Id
    WEBHOOKS_V1A_FIRST = "webhooks_v1a_first"  # a signature of another version stands first
    # Beside each webhook one of a type that no client knows, subscribed or not.
    WEBHOOKS_UNKNOWN_TYPE = "webhooks_unknown_type"
    WEBHOOKS_NO_ENDPOINTS = "webhooks_no_endpoints"  # they can't be managed: all of it is 404


# A batch without its output file is lost to every client, however good.
PRESET_ALL = tuple(one for one in Deviation if one is not Deviation.BATCH_NO_OUTPUT_ID)


def parse_deviations(text: str) -> tuple[Deviation, ...]:
    """Read `NAME`, several with commas, or `all`, which leaves out `batch_no_output_id`.

    Raises EmulatorMistake that lists the known names.
    """
    given = [piece.strip() for piece in text.split(",") if piece.strip()]
    check_deviations([name for name in given if name != "all"])
    named = {name for name in given if name != "all"}
    if "all" in given:
        named.update(PRESET_ALL)
    return tuple(one for one in Deviation if one in named)


def check_deviations(names: Collection[str]) -> None:
    """Raise EmulatorMistake for a name that nobody knows; it lists those that are known."""
    for name in names:
        if name not in list(Deviation):
            message = f"unknown deviation {name!r}; known are {', '.join(Deviation)}"
            raise EmulatorMistake(message)
