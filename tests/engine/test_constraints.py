"""What a reply has to obey of a JSON schema: narrowed where objects list their properties, widened where the library
knows no keyword.
"""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.engine.constraints import BadSchema, Constraint, Vocabulary, narrowed
from crawltalk.tokenizer import Tokenizer

TOKENIZER = Tokenizer.trained([])
VOCABULARY = Vocabulary(TOKENIZER, [TOKENIZER.eot])
TEXT = {"type": "string"}
LISTED = {"type": "object", "properties": {"a": TEXT}}
CLOSED = LISTED | {"additionalProperties": False}


def obeys(schema: object, value: object) -> bool:
    """Whether a constraint lets this value through."""
    constraint = Constraint.of_schema(VOCABULARY, json.dumps(schema))
    return constraint._matcher.validate_tokens(TOKENIZER.encode(json.dumps(value))) == len(json.dumps(value))


@pytest.mark.parametrize(
    ("schema", "becomes"),
    [
        (LISTED, CLOSED),
        ({"items": LISTED}, {"items": CLOSED}),
        (
            {"$defs": {"x": LISTED}, "anyOf": [LISTED, TEXT]},
            {"$defs": {"x": CLOSED}, "anyOf": [CLOSED, TEXT]},
        ),
        ({"properties": {"properties": LISTED}, "additionalProperties": True}, None),
        ({"allOf": [LISTED]}, {"allOf": [CLOSED]}),
    ],
)
def test_an_object_has_the_properties_that_it_lists(schema, becomes):
    if becomes is None:
        becomes = {"properties": {"properties": CLOSED}, "additionalProperties": True}
    assert narrowed(schema) == becomes


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        LISTED | {"additionalProperties": True},
        LISTED | {"additionalProperties": TEXT},
        LISTED | {"patternProperties": {"^x": TEXT}},
        LISTED | {"required": ["b"]},
        LISTED | {"required": 5},
        LISTED | {"anyOf": [{"properties": {"b": TEXT}}]},
        {"allOf": [LISTED, {"properties": {"b": TEXT}}]},
        {"const": {"properties": {"a": 1}}, "enum": [{"properties": {}}], "default": {"properties": {}}},
        {"properties": 5},
        True,
        {},
    ],
)
def test_a_schema_that_lets_objects_have_more_stays_as_it_is(schema):
    assert narrowed(schema) == schema


def test_an_integer_without_limits_ends_where_json_is_no_longer_exact():
    assert obeys({"type": "integer"}, 2**53 - 1)
    assert not obeys({"type": "integer"}, 2**53)
    assert not obeys({"type": ["integer", "null"]}, -(2**53))
    assert obeys({"type": ["integer", "null"]}, None)
    for schema in ({"minimum": 0}, {"multipleOf": 3}, {"enum": [2**60]}):
        assert narrowed({"type": "integer"} | schema) == {"type": "integer"} | schema
    assert narrowed({"type": ["integer", "number"]}) == {"type": ["integer", "number"]}


def test_a_closed_object_ends_and_an_open_one_may_go_on():
    assert obeys(LISTED, {"a": "x"})
    assert obeys(LISTED, {})
    assert not obeys(LISTED, {"b": "x"})
    assert obeys(LISTED | {"additionalProperties": True}, {"b": "x"})
    both = {"allOf": [LISTED, {"type": "object", "properties": {"b": TEXT}}]}
    assert obeys(both, {"a": "x", "b": "y"})


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (TEXT | {"format": "path"}, "format: path"),
        ({"type": "array", "items": TEXT, "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "not": {"required": ["a"]}}, "not"),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, "if"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"oneOf": [TEXT, TEXT | {"maxLength": 4}]}, "oneOf"),
        (TEXT | {"pattern": "(?=a)a"}, "pattern"),
        (TEXT | {"pattern": r"(a)\1"}, "pattern"),
        ({"properties": {"a": TEXT | {"pattern": "("}}}, "pattern"),
    ],
)
def test_what_the_library_does_not_know_is_left_out_and_named(schema, named):
    assert named in " ".join(Constraint.of_schema(VOCABULARY, json.dumps(schema)).relaxed)


def test_a_schema_that_is_known_in_full_is_not_relaxed():
    schema = {
        "type": "object",
        "properties": {"d": TEXT | {"format": "date"}, "p": TEXT | {"pattern": "^[a-c]{3}$"}},
    }
    assert Constraint.of_schema(VOCABULARY, json.dumps(schema)).relaxed == ()
    assert not obeys(schema, {"d": "today"})


@pytest.mark.parametrize(
    "schema", [{"type": "nothing"}, {"enum": []}, {"$ref": "#/x"}, {"properties": 5}, False]
)
def test_what_no_reply_can_obey_is_refused_with_the_reason(schema):
    with pytest.raises(BadSchema, match=r"cannot be obeyed: .") as caught:
        Constraint.of_schema(VOCABULARY, json.dumps(schema))
    assert "\n" not in str(caught.value)


OPEN_SCHEMAS = (
    TEXT,
    {"type": "number"},
    {"type": "array", "items": TEXT},
    {"type": "object", "properties": {"a": TEXT, "b": {"type": "number"}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"deep": {"type": "array", "items": LISTED | {"required": ["a"]}}}},
    {"anyOf": [{"type": "string", "minLength": 9}, {"enum": ["one", 2, None]}]},
)


@given(st.sampled_from(OPEN_SCHEMAS), st.integers(0, 2**32 - 1), st.integers(70, 300))
@settings(max_examples=60, deadline=None)
def test_a_reply_that_has_to_end_in_time_ends_in_time(schema, seed, most):
    constraint = Constraint.of_schema(VOCABULARY, json.dumps(schema))
    generator = torch.Generator().manual_seed(seed)
    reply: list[int] = []
    while True:
        logits = torch.randn(TOKENIZER.vocab_size, generator=generator)
        logits[[*b'"}],0123456789', TOKENIZER.eot]] -= 8.0  # by itself it would not end
        constraint.mask(logits, most - len(reply))
        token = int(logits.argmax())
        if token == TOKENIZER.eot:
            break
        reply.append(token)
        assert len(reply) <= most
        if constraint.accept(token):
            break
    json.loads(TOKENIZER.decode(reply))


def test_a_reply_without_time_for_an_end_is_cut():
    constraint = Constraint.of_schema(VOCABULARY, json.dumps({"type": "string", "minLength": 50}))
    for left in range(40, 0, -1):
        logits = torch.zeros(TOKENIZER.vocab_size)
        constraint.mask(logits, left)
        assert not constraint.accept(int(logits.argmax()))
