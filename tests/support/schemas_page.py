"""The reference of reports and attestations: run as a module, it writes the page and the schema.

Keys and types of the report of a request and of an attestation are those of messages with every
field set, and with none; what they mean is said in `tests.support.schema_words`.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from disinherit.common.audit.attestation import PREDICATE_TYPE, read_statement
from disinherit.common.audit.dsse import Signer
from disinherit.common.audit.gaps import Gap, GapKind
from disinherit.documents.campaign.values import report_values
from disinherit.server.planning.coverage import Covered
from disinherit.server.reports.report import ModelReport, Report
from disinherit.server.reports.statement import attest
from disinherit.server.states import CampaignState, TaskState
from disinherit.server.store.campaigns import Campaign
from disinherit.simulations.report.document import RunReport
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.unlearning_pb2 import ModelResult, UnlearningRequest
from tests import ROOT
from tests.support.reference import one_line, table
from tests.support.schema_words import OF_ATTESTATIONS, OF_REPORTS

PAGE = ROOT / "docs" / "schemas.md"
SCHEMA = ROOT / "docs" / "schemas" / "report.schema.json"
NAME = "NAME"
"""What stands for a name that is not fixed: of a model, a state, an event or a parameter."""
_TIMES = ("received", "approved", "last_applied", "ended")
"""Those that durations are computed from."""

_HEAD = f"""# Reports and attestations

The keys of what programs read: the report of a run, the report of a request, and an attestation.
`NAME` stands for a name that is not fixed, and `[]` for each entry of a list. What attestations
are, and how they are verified: [the audit log and attestations](audit.md#attestations).

This page is made from the code by `make reference`.

## The report of a run

`report.json` of `disinherit run start`, `disinherit simulate` and `disinherit demo`; as a
[JSON Schema](schemas/{SCHEMA.name}). Accuracies are in percent, times in seconds; `null` means
"could not be computed", never zero.
"""
_OF_REQUESTS = """
## The report of a request

`disinherit request report REQUEST --format json`. Times are in ISO 8601 and UTC; shares are from 0
to 1.

"""
_OF_ATTESTATIONS = f"""
## Attestations

The payload of the envelope that `disinherit audit attest` writes: an in-toto statement with the
predicate type `{PREDICATE_TYPE}`. Below `predicate`; fractions are text, so that the bytes are the
same everywhere.

"""


def page() -> str:
    """The page as it should be."""
    return "".join(
        [
            _HEAD,
            *_sections(),
            _OF_REQUESTS,
            _keys(reports(), OF_REPORTS),
            _OF_ATTESTATIONS,
            _keys(predicates(), OF_ATTESTATIONS),
        ]
    )


def schema() -> str:
    """The JSON Schema of `report.json`."""
    found = msgspec.json.schema(RunReport)
    for one in found["$defs"].values():
        if "description" in one:
            one["description"] = inspect.cleandoc(one["description"])
    values = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "report.json"}
    return json.dumps(values | found, indent=1) + "\n"


def _sections() -> Iterator[str]:
    found = json.loads(schema())["$defs"]
    first = "RunReport"
    for name in (first, *(one for one in found if one != first)):
        one = found[name]
        rows = (
            (f"`{key}`", _type(value), "yes" if key in one["required"] else "")
            for key, value in one["properties"].items()
        )
        said = " ".join(one["description"].split())
        yield f"\n### `{name}`\n\n{said}\n\n{table(('key', 'type', 'always there'), rows)}"


def _type(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(map(_type, value["anyOf"]))
    if "enum" in value:
        return " or ".join(f"`{json.dumps(one)}`" for one in value["enum"])
    if value["type"] == "array":
        return f"list of {_type(value['items'])}"
    if value["type"] == "object":
        return f"NAME → {_type(value['additionalProperties'])}"
    return {"string": "text", "integer": "a whole number", "boolean": "true or false"}.get(
        value["type"], "a number" if value["type"] == "number" else "null"
    )


def paths(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and type of everything in a value of JSON."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from paths(one, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list) and value:
        for one in value:
            yield from paths(one, f"{path}[]")
    else:
        yield path, _word(value)


def _word(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (dict, list)):
        return ""
    return "a whole number" if isinstance(value, int) else "a number"


def _keys(values: list[Any], meanings: Mapping[str, str]) -> str:
    found = keys(values)
    rows = ((f"`{path}`", kind, one_line(meanings[path])) for path, kind in found.items())
    return table(("key", "type", "meaning"), rows)


def keys(values: list[Any]) -> dict[str, str]:
    """Path -> type, of all that is in some values; what holds others only if it may be null."""
    found: dict[str, dict[str, None]] = {}
    for value in values:
        for path, kind in paths(value):
            found.setdefault(path, {})[kind] = None
    holding = {one for one in found if any(_within(other, one) for other in found)}
    return {
        one: "more keys or null" if one in holding else " or ".join(filter(None, kinds))
        for one, kinds in found.items()
        if one not in holding or "null" in kinds
    }


def _within(path: str, other: str) -> bool:
    return path != other and re.match(rf"{re.escape(other)}[.\[]", path) is not None


def filled(message: Message, measure: str) -> None:
    """Set every field of a message, and of the messages in it."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _, value = field.message_type.fields
            getattr(message, field.name)[NAME] = _scalar(value, measure)
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            filled(inner.add() if field.is_repeated else inner, measure)
        elif field.is_repeated:
            getattr(message, field.name).append(_scalar(field, measure))
        else:
            setattr(message, field.name, _scalar(field, measure))


def _scalar(field: Any, measure: str) -> Any:
    if field.name == "measure":
        return measure
    return {
        FieldDescriptor.CPPTYPE_STRING: NAME,
        FieldDescriptor.CPPTYPE_DOUBLE: 0.5,
        FieldDescriptor.CPPTYPE_BOOL: True,
    }.get(field.cpp_type, 1)


def reports() -> list[Any]:
    """Reports of a request: of a class, of samples, with answers that say least, and with none."""
    found: list[Any] = []
    for measure in ("accuracy", "auc"):
        summary, model = pb.ReportSummary(), pb.ModelReport()
        filled(summary, measure)
        filled(model, measure)
        summary.times_us.update(dict.fromkeys(_TIMES, 1))
        found.append(report_values(summary, [model]) | {"times": {NAME: "2027-01-01T00:00:00Z"}})
    least, few = pb.ModelReport(result=ModelResult()), pb.ModelReport(result=ModelResult())
    few.result.forget.measure = "auc"
    return [*found, report_values(pb.ReportSummary(), [pb.ModelReport(), least, few])]


def predicates() -> list[Any]:
    """Predicates of attestations: of a class, of samples, and with nothing in them yet."""
    return [_predicate("accuracy"), _predicate("auc"), _predicate("")]


def _predicate(measure: str) -> Any:
    request, result = UnlearningRequest(), ModelResult()
    if measure:
        filled(request, measure)
        filled(result, measure)
    name, time = (NAME, 1) if measure else ("", 0)
    state = TaskState.VERIFIED
    covered = Covered(NAME, NAME, state, "", name, name, name, time, 0, time, time)
    model = ModelReport(covered, result if measure else None, (NAME,), time, time, name)
    campaign = Campaign(NAME, CampaignState.COMPLETE, 0, 1, 1, 0, 0, "")
    report = Report(
        request, campaign, (model,), {NAME: (NAME,)}, (model.statement_entry(),), NAME, 1, 1,
        {NAME: 1}, (Gap(GapKind.LATE, (NAME,)),), 1, NAME,
    )  # fmt: skip
    signer = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    text = json.dumps(read_statement(attest(report, signer))["predicate"])
    return json.loads(text.replace(f'"by_state": {{"{state}"', f'"by_state": {{"{NAME}"'))


if __name__ == "__main__":
    SCHEMA.parent.mkdir(exist_ok=True)
    SCHEMA.write_text(schema())
    PAGE.write_text(page())
