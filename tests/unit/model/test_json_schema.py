import json

from shared.model.json_schema import job_schema
from shared.model.reference import FIELDS
from tests.unit.model.test_language import WHOLE

SCHEMA = job_schema()


def test_it_is_json() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def test_every_field_is_in_it_with_its_meaning() -> None:
    for field in FIELDS:
        part = SCHEMA["$defs"][field.owner]
        assert part["properties"][field.name]["description"] == field.description
        assert (field.name in part["required"]) is field.required
        assert part["additionalProperties"] is False


def test_every_field_is_described_once() -> None:
    assert all(field.description for field in FIELDS)
    assert len({field.path for field in FIELDS}) == len(FIELDS) > 100
    assert {"JobDefinition.autoDelete", "Retry.initialDelay", "TaskDefinition.if", "Each.list"} <= {
        field.path for field in FIELDS
    }


def test_types_are_named_as_the_reference_names_them() -> None:
    types = {field.path: field.type for field in FIELDS}
    assert types["TaskDefinition.env"] == "{string: template}"
    assert types["TaskDefinition.files"] == "{string: string or FileTemplate}"
    assert types["TaskDefinition.cmd"] == "[template]"
    assert types["TaskDefinition.pre"] == "[SmallTask]"
    assert types["TaskDefinition.if"] == "expression"
    assert types["TaskDefinition.priority"] == "integer"
    assert types["Retry.jitter"] == "number"
    assert types["SubJob.detached"] == "boolean"
    assert types["JobDefinition.tasks"] == "[TaskDefinition]"


def test_limits_are_in_it() -> None:
    priority = SCHEMA["$defs"]["TaskDefinition"]["properties"]["priority"]["anyOf"][0]
    assert priority == {"type": "integer", "minimum": 0, "maximum": 9}
    assert SCHEMA["$defs"]["Mount"]["properties"]["type"]["enum"] == ["volume", "bind", "tmpfs"]
    assert SCHEMA["$defs"]["JobDefinition"]["properties"]["tasks"]["minItems"] == 1
    for kind in ("JobDefinition", "SubJob"):
        assert SCHEMA["$defs"][kind]["properties"]["webhooks"]["maxItems"] == 100
    for kind in ("JobDefinition", "SubJob", "TaskDefinition"):
        fields = SCHEMA["$defs"][kind]["properties"]
        assert (fields["tags"]["maxItems"], fields["tags"]["items"]["maxLength"]) == (100, 256)
        assert fields["description"]["maxLength"] == 10_000
    assert "maxLength" not in SCHEMA["$defs"]["TaskDefinition"]["properties"]["var"], "a template"


def test_the_text_of_a_file_may_be_a_scalar_or_a_template() -> None:
    for kind in ("TaskDefinition", "SmallTask", "Sidecar"):
        text, template = SCHEMA["$defs"][kind]["properties"]["files"]["additionalProperties"][
            "anyOf"
        ]
        assert text == {"type": ["string", "number", "boolean", "null"]}
        assert template == {"$ref": "#/$defs/FileTemplate"}


def test_each_field_of_the_language_is_in_the_whole_example() -> None:
    """So that what holds for the example holds for every field."""
    for field in FIELDS:
        assert f"{field.name}:" in WHOLE or "chedule" in field.path, field.path
