"""How servers that speak this API differ from OpenAI's own; each can be switched on by itself."""

from collections.abc import Collection
from enum import StrEnum

from orchestrator.emulator.mistakes import EmulatorMistake


class Deviation(StrEnum):
    """What a server does otherwise; the first word of each is the API that it touches."""

    BATCH_BLANK_ERROR_ID = "batch_blank_error_id"  # error_file_id is "" where there is no file
    BATCH_EMPTY_ERROR_FILE = "batch_empty_error_file"  # an error file although nothing failed
    BATCH_BODY_AS_TEXT = "batch_body_as_text"  # response.body in the output is JSON in a string
    BATCH_NO_OUTPUT_ID = "batch_no_output_id"  # completed, with output_file_id null all the same
    BATCH_REFUSED_IN_OUTPUT = "batch_refused_in_output"  # lines with a 400 in the output file
    BATCH_NO_COUNTS_ON_FAILURE = "batch_no_counts_on_failure"  # failed, request_counts null
    BATCH_NO_RESPONSES = "batch_no_responses"  # /v1/responses is no endpoint for batches


def check_deviations(names: Collection[str]) -> None:
    """Raise EmulatorMistake for a name that nobody knows; it lists those that are known."""
    for name in names:
        if name not in list(Deviation):
            message = f"unknown deviation {name!r}; known are {', '.join(Deviation)}"
            raise EmulatorMistake(message)
