"""Lines of input: what they may be, what they become, and what is refused."""

import json
from pathlib import Path

import pytest

from orchestrator.adapters.request_file import RequestDefaults, request_from
from orchestrator.adapters.request_file.jsontext import LineError
from orchestrator.adapters.request_file.line import sendable
from orchestrator.core.families import (
    CHAT_URL,
    COMPLETIONS_URL,
    EMBEDDINGS_URL,
    MODERATIONS_URL,
    RESPONSES_URL,
)
from orchestrator.core.model import Family, Request
from orchestrator.errors import RequestUnusable, SettingUnusable

WITH_MODEL = RequestDefaults(model="gpt-5-nano")


def batch_line(custom_id="a", url=RESPONSES_URL, **body):
    body = {"model": "gpt-5-nano", "input": "Hi"} | body
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def text_of(line):
    return line if isinstance(line, bytes) else json.dumps(line).encode()


def read(line, defaults=None):
    """What a line becomes, and its body parsed."""
    found = sendable(text_of(line), defaults or RequestDefaults(), 1)
    return found, json.loads(found.content)


class TestWhatALineMayBe:
    def test_openai_batch_format(self):
        """A line in Batch format is sent as it says, under its own custom_id."""
        request, body = read(batch_line("mine", CHAT_URL, messages=[]))

        assert (request.custom_id, request.url, request.model) == ("mine", CHAT_URL, "gpt-5-nano")
        assert request.family is Family.DIRECT
        assert body == {"model": "gpt-5-nano", "input": "Hi", "messages": []}

    @pytest.mark.parametrize(
        ("body", "url"),
        [
            ({"model": "gpt-5", "messages": []}, CHAT_URL),
            ({"model": "gpt-5", "input": "Hi"}, RESPONSES_URL),
            ({"model": "text-Embedding-3-small", "input": "Hi"}, EMBEDDINGS_URL),
            ({"model": "omni-moderation-latest", "input": "Hi"}, MODERATIONS_URL),
            ({"model": "gpt-5", "prompt": {"id": "pmpt_1"}}, RESPONSES_URL),
        ],
    )
    def test_a_bare_body_shows_where_it_goes(self, body, url):
        """A body alone is enough: what is in it tells the endpoint, and it goes out unchanged."""
        request, sent = read(body)

        assert request.url == url
        assert sent == body

    def test_a_bare_body_under_a_custom_id(self):
        """A custom_id, url and method beside the body's members are not sent with them."""
        request, sent = read(
            {"custom_id": "mine", "url": "/v1/embeddings", "method": "post", "model": "m"}
            | {"input": ["1", "2"]}
        )

        assert (request.custom_id, request.url) == ("mine", EMBEDDINGS_URL)
        assert sent == {"model": "m", "input": ["1", "2"]}

    def test_the_default_model_tells_the_url_too(self):
        """An input for the job's embedding model goes to the embeddings."""
        request, _ = read({"input": "Hi"}, defaults=RequestDefaults(model="text-embedding-3-small"))

        assert (request.url, request.model) == (EMBEDDINGS_URL, "text-embedding-3-small")

    @pytest.mark.parametrize(
        ("url", "sent"),
        [
            (None, {"input": "Hi"}),
            ("/v1/responses", {"input": "Hi"}),
            ("/v1/embeddings", {"input": "Hi"}),
            ("/v1/moderations", {"input": "Hi"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
            ("/v1/completions", {"prompt": "Hi"}),
        ],
    )
    def test_a_prompt_becomes_what_the_url_takes(self, url, sent):
        """{"prompt": ...} works for every endpoint; without a url it is for /v1/responses."""
        defaults = RequestDefaults(url=url, model="m")

        request, body = read({"prompt": "Hi", "temperature": 0.5}, defaults=defaults)

        assert request.url == (url or RESPONSES_URL)
        assert body == sent | {"temperature": 0.5, "model": "m"}

    def test_a_prompt_under_a_custom_id_is_still_a_prompt(self):
        """The custom_id goes, the prompt becomes the input."""
        request, body = read({"custom_id": "q1", "prompt": "Zwölf?", "model": "m"})

        assert request.custom_id == "q1"
        assert body == {"input": "Zwölf?", "model": "m"}

    @pytest.mark.parametrize("members", [{}, {"custom_id": None, "url": None, "method": None}])
    def test_lines_without_a_name_are_named_by_their_number(self, members):
        """A program may write null for what it leaves out."""
        line = {"prompt": "Hi", "model": "m"} | members

        assert sendable(text_of(line), RequestDefaults(), 812).custom_id == "line-812"

    @pytest.mark.parametrize(("url", "kept"), [(EMBEDDINGS_URL, False), (RESPONSES_URL, True)])
    def test_notes_in_bare_bodies_stay_at_home(self, url, kept):
        """`metadata` is sent only to the endpoints that have such a field."""
        _, body = read({"url": url, "model": "m", "input": "Hi", "metadata": {"row": "1"}})

        assert ("metadata" in body) is kept

    @pytest.mark.parametrize(
        "said", ["/v1/responses", "v1/responses", "/responses", "responses", "/v1/responses/"]
    )
    def test_ways_to_write_a_url(self, said):
        """The /v1 in front and slashes at the ends don't matter."""
        request, _ = read(batch_line(url=said))

        assert request.url == RESPONSES_URL


class TestDefaults:
    DEFAULTS = RequestDefaults(
        url="/responses", model="gpt-5", body={"instructions": "Be kind.", "max_output_tokens": 9}
    )

    def test_they_fill_what_is_missing_and_replace_nothing(self):
        """A line's own words win; null is such a word, but a model of null is none."""
        line = {"input": "Hi", "instructions": None, "model": None}

        request, body = read(line, defaults=self.DEFAULTS)

        assert request.model == "gpt-5"
        assert body == {
            "input": "Hi",
            "instructions": None,
            "model": "gpt-5",
            "max_output_tokens": 9,
        }

    def test_they_are_added_at_the_end_and_the_rest_stays_as_written(self):
        """Numbers that no float can hold and the order of keys survive."""
        body = b'{"seed": 12345678901234567890123, "input": "\\u00fc", "top_p": 1e-999}'
        line = b'{"url": "/v1/responses", "body": ' + body + b"}"

        assert sendable(line, RequestDefaults(model="m"), 1).content == (
            b'{"seed":12345678901234567890123,"input":"\\u00fc","top_p":1e-999,"model":"m"}'
        )

    @pytest.mark.parametrize(
        ("before", "after"), [(b'{"custom_id": "a", "body":  ', b"  }"), (b"", b" \r")]
    )
    def test_a_body_that_lacks_nothing_goes_out_byte_for_byte(self, before, after):
        """Spaces, doubled keys and all."""
        body = '{ "model":"m",\t"input" : "ü\\u00fc", "x": 1.0, "x": 1.00 }'.encode()

        assert sendable(before + body + after, RequestDefaults(), 1).content == body

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"url": "http://localhost/v1"},
                (
                    "url = 'http://localhost/v1' can't be used: the url "
                    '"http://localhost/v1" is a full address. Write only its path, for '
                    'example "/v1/responses"; --base-url names the server. Nothing was sent.'
                ),
            ),
            (
                {"body": {"top_p": float("nan")}},
                (
                    "top_p = nan can't be used: Out of range float values are not JSON compliant. "
                    "Give a value that JSON has. Nothing was sent."
                ),
            ),
        ],
    )
    def test_defaults_that_can_not_be_used(self, settings, message):
        """They are refused before any line is read."""
        with pytest.raises(SettingUnusable) as caught:
            RequestDefaults(**settings)

        assert str(caught.value).replace("compliant: nan", "compliant") == message


class TestFamilies:
    @pytest.mark.parametrize(
        ("members", "family"),
        [
            ({}, Family.RESPONSES),
            ({"background": True}, Family.RESPONSES),
            ({"background": None}, Family.RESPONSES),
            ({"background": False}, Family.DIRECT),
            ({"background": False, "store": False}, Family.DIRECT),
            ({"store": True, "stream": False}, Family.RESPONSES),
        ],
    )
    def test_responses_run_in_the_background_unless_told_otherwise(self, members, family):
        """Only "background": false takes a response out of the background."""
        request, _ = read(batch_line(**members))

        assert request.family is family


class TestTokens:
    @pytest.mark.parametrize(
        ("url", "members", "output"),
        [
            (RESPONSES_URL, {}, 0),
            (RESPONSES_URL, {"max_output_tokens": 100}, 100),
            (RESPONSES_URL, {"max_output_tokens": 100, "n": 3}, 100),
            (CHAT_URL, {"messages": [], "max_tokens": 50}, 50),
            (CHAT_URL, {"messages": [], "max_completion_tokens": 60, "n": 3}, 180),
            (COMPLETIONS_URL, {"prompt": "", "max_tokens": 7, "n": 2}, 14),
            (RESPONSES_URL, {"max_output_tokens": "many"}, 0),
            (RESPONSES_URL, {"max_output_tokens": -1}, 0),
            (RESPONSES_URL, {"max_output_tokens": None}, 0),
        ],
    )
    def test_a_quarter_of_the_characters_and_the_output_allowed(self, url, members, output):
        """Rounded up; the output counts once for each choice."""
        line = batch_line(url=url, **members)

        request, _ = read(line)

        assert request.tokens == -(-len(json.dumps(line["body"])) // 4) + output

    def test_characters_count_not_bytes(self):
        """A character outside ASCII is one, in whatever way UTF-8 writes it."""
        whole = '{"model":"m","input":"一二三四"}'

        request, _ = read(whole.encode())

        assert request.tokens == -(-len(whole) // 4)

    def test_the_digits_of_a_huge_limit_are_no_problem(self):
        """A limit that makes no sense is left to the server to judge."""
        request, _ = read(b'{"model": "m", "input": "", "max_output_tokens": %b}' % (b"9" * 4_000))

        assert request.tokens < 2_000


class TestRefusedLines:
    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ({"body": {"input": "Hi"}}, '"model" is missing'),
            ({"body": {"input": "Hi", "model": ""}}, '"model" is missing'),
            ({"body": {"input": "Hi", "model": 5}}, '"model" is a number, not a string'),
            ({"body": {"model": "m"}, "url": RESPONSES_URL}, '"input" is missing'),
            ({"body": {"model": "m", "input": None}, "url": RESPONSES_URL}, '"input" is missing'),
            ({"body": {"model": "m", "prompt": "x"}, "url": RESPONSES_URL}, '"input" is missing'),
            ({"body": {"model": "m", "input": "x"}, "url": CHAT_URL}, '"messages" is missing'),
            ({"body": {"model": "m", "input": "x"}, "url": COMPLETIONS_URL}, '"prompt" is missing'),
            ({"body": {"model": "m"}, "url": EMBEDDINGS_URL}, '"input" is missing'),
            ({"body": {"model": "m"}, "url": MODERATIONS_URL}, '"input" is missing'),
            ({"body": {"model": "m", "prompt": "x"}}, 'there is no "url"'),
            ({"model": "m"}, 'there is no "url"'),
            ({}, 'there is no "url"'),
            ({"body": [1]}, '"body" is an array, not an object'),
            ({"body": "{}"}, '"body" is a string, not an object'),
            ({"prompt": "x", "input": "y", "model": "m"}, 'both "prompt" and "input"'),
            ({"prompt": ["x"], "model": "m"}, '"input" is missing'),
            (batch_line(url="/v1/images"), 'the url "/v1/images" is unknown. Known are /v1/resp'),
            (batch_line(url=""), 'the url "" is unknown'),
            (batch_line(url="http://x/v1/responses"), "full address. Write only its path"),
            (batch_line(url=7), '"url" is a number, not a string'),
            (batch_line() | {"method": "GET"}, 'the method "GET" can\'t be sent. Write "POST"'),
            (batch_line() | {"method": True}, '"method" is true, not a string'),
            (batch_line(stream=True), '"stream" is true, but results are fetched whole. Remove'),
            (batch_line(stream="yes"), '"stream" is a string, not true or false'),
            (batch_line(store=False), 'always stored. Add "background": false'),
            (batch_line(background=0), '"background" is a number, not true or false'),
            (batch_line(""), "the custom_id is empty"),
            (batch_line("x" * 513), "the custom_id has 513 characters. Give it at most 512."),
            (batch_line("a\tb"), "the custom_id has control characters"),
            (batch_line("a\x85b"), "the custom_id has control characters"),
            (
                batch_line(7),
                'the custom_id "7" is not a string. Write it in quotes: "custom_id": "7"',
            ),
            (batch_line(1.5), 'the custom_id "1.5" is not a string'),
            (batch_line({}), 'the custom_id "{}" is not a string'),
            (b"[]", "this is an array, not a JSON object"),
            (b'"text"', "this is a string, not a JSON object"),
            (b"null", "this is null, not a JSON object"),
            (b"17", "this is a number, not a JSON object"),
            (b"{'a': 1}", "this is not JSON: "),
            (b'{"a": 1,}', "this is not JSON: trailing comma in object (near byte 9)"),
            (b'{"a": 1} {"b": 2}', "this is not JSON: trailing characters (near byte 11)"),
            (b'{"body": {"model": "m", "input": "Hi', "the JSON ends before it is complete"),
            (b'{"model": "m", "input": "\\ud83d\\ude00', "the JSON ends before it is complete"),
            (b'{"model": "m", "input": NaN}', "NaN and Infinity are not JSON"),
            (b'{"model": "m", "input": [-Infinity]}', "NaN and Infinity are not JSON"),
            (b'{"model": "m", "input": "\\ud83d"}', "half of a pair"),
            (b'{"model": "m", "input": "\\ude00 and more text"}', "half of a pair"),
            (b'{"model": "m", "input": "\\ud83d and more text"}', "half of a pair"),
            (b'{"model": "\xff"}', "the text is not UTF-8 (at byte 12). Save the file as UTF-8."),
            (b'{"model": "\xed\xa0\x80"}', "the text is not UTF-8"),
            (b'{"a": "\0"}', "there are NUL bytes in it"),
            (b"\0\0\0\0", "there are NUL bytes in it"),
            (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
            (b'{"body": ' + b'{"a":' * 100_000, "nested too deeply"),
        ],
    )
    def test_problem_and_cure(self, line, says):
        """What the API is sure to refuse is refused before it costs anything."""
        with pytest.raises(LineError) as caught:
            sendable(text_of(line), RequestDefaults(), 1)

        message = f"{caught.value.problem}. {caught.value.cure}"
        assert says in message
        assert message.endswith(".")

    def test_a_long_wrong_value_is_cut(self):
        """A message stays readable whatever is in the file."""
        with pytest.raises(LineError) as caught:
            sendable(text_of(batch_line(url="x" * 100_000)), RequestDefaults(), 1)

        assert len(caught.value.problem) < 100


class TestRequestsFromAProgram:
    def test_a_mapping_follows_the_rules_of_a_line(self):
        """What works in a file works in a program."""
        request = request_from({"prompt": "Zwölf?", "top_p": 1}, WITH_MODEL, 3)

        assert (request.custom_id, request.url, request.line) == ("line-3", RESPONSES_URL, 0)
        assert request.body.read() == '{"top_p":1,"input":"Zwölf?","model":"gpt-5-nano"}'.encode()

    def test_a_request_stays_itself(self):
        """A request that is one already is not made again."""
        request = request_from({"prompt": "Hi"}, WITH_MODEL, 1)

        assert request_from(request, RequestDefaults(), 2) is request
        assert isinstance(request, Request)

    def test_problems_are_told_without_a_file(self):
        """The whole message, as a programmer reads it."""
        with pytest.raises(RequestUnusable) as caught:
            request_from({"custom_id": "a", "prompt": "Hi", "stream": True}, WITH_MODEL, 1)

        assert str(caught.value) == (
            'This request can\'t be used (custom_id "a"): "stream" is true, but results are '
            'fetched whole. Remove "stream" from the body. It was not sent.'
        )

    @pytest.mark.parametrize(
        "value", [float("nan"), {1, 2}, b"bytes", "\ud800", {("a",): 1}, Path("x")]
    )
    def test_values_that_json_has_not(self, value):
        """They are the caller's mistake, told as ours to tell."""
        with pytest.raises(RequestUnusable):
            request_from({"prompt": "Hi", "extra": value}, WITH_MODEL, 1)

    def test_a_value_that_holds_itself(self):
        """A circle can't be written down."""
        circle = []
        circle.append(circle)

        with pytest.raises(RequestUnusable):
            request_from({"input": circle}, WITH_MODEL, 1)
