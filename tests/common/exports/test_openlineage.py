"""Run events of OpenLineage, read by the classes of its client."""

import json
from typing import Any
from uuid import UUID

import pytest

from disinherit.common.errors import InputError
from disinherit.common.exports.openlineage import FACET, run_event, run_id
from tests.support.exports import PERSONAL, finished, model

event_v2 = pytest.importorskip("openlineage.client.event_v2")
facet_v2 = pytest.importorskip("openlineage.client.facet_v2")
serde = pytest.importorskip("openlineage.client.serde")


def _rebuilt(event: dict[str, Any]) -> dict[str, Any]:
    """An event as the client writes it, with its own classes, checks and schemas."""
    known = {
        "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
        "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
    }

    def facets(shown: dict[str, dict[str, Any]], general: type[Any]) -> dict[str, Any]:
        made = {}
        for name, values in shown.items():
            own = {k: v for k, v in values.items() if not k.startswith("_")}
            producer = {"producer": values["_producer"]}
            if name == "ownership":
                owners = [facet_v2.ownership_dataset.Owner(**one) for one in own["owners"]]
                made[name] = facet_v2.ownership_dataset.OwnershipDatasetFacet(owners, **producer)
            elif name in known:
                made[name] = known[name](**own, **producer)
            else:
                made[name] = general(**producer).with_additional_properties(**own)
        return made

    def data_sets(shown: list[dict[str, Any]], kind: type[Any], side: str) -> list[Any]:
        return [
            kind(
                one["namespace"],
                one["name"],
                facets=facets(one["facets"], facet_v2.DatasetFacet),
                **{side: None},
            )
            for one in shown
        ]

    run = event["run"]
    made = event_v2.RunEvent(
        eventTime=event["eventTime"],
        producer=event["producer"],
        eventType=event_v2.RunState[event["eventType"]],
        run=event_v2.Run(run["runId"], facets(run["facets"], facet_v2.RunFacet)),
        job=event_v2.Job(event["job"]["namespace"], event["job"]["name"]),
        inputs=data_sets(event["inputs"], event_v2.InputDataset, "inputFacets"),
        outputs=data_sets(event["outputs"], event_v2.OutputDataset, "outputFacets"),
    )
    values: dict[str, Any] = json.loads(serde.Serde.to_json(made))
    return values


def test_the_client_of_openlineage_makes_the_same_event() -> None:
    event = run_event(finished())
    assert _rebuilt(event) == json.loads(json.dumps(event, allow_nan=False))


def test_what_was_done_is_in_the_facets() -> None:
    event = run_event(finished())
    assert (event["eventType"], event["eventTime"]) == ("COMPLETE", "1970-01-01T00:00:03.500000Z")
    assert [one["name"] for one in event["inputs"]] == ["r1", "r2"]
    (made,) = event["outputs"]
    assert made["name"] == "r1~q"
    assert made["facets"]["version"]["datasetVersion"] == "a" * 64
    shown = made["facets"][FACET]
    assert (shown["remedy"], shown["state"], shown["madeOf"]) == ("suppressed", "verified", "r1")
    assert shown["figures"]["forget_after"] == 0
    assert (shown["digestBefore"], shown["digestAfter"]) == ("b" * 64, "a" * 64)
    run = event["run"]["facets"][FACET]
    assert run["state"] == "partial"
    assert "failed" in {gap["kind"] for gap in run["gaps"]}
    assert run["attestationSha256"] == finished().attestation_sha256
    assert (run["roots"], run["classes"], run["samples"]) == (2, 1, 1)


def test_a_run_is_the_same_at_every_export() -> None:
    assert run_event(finished()) == run_event(finished())
    assert UUID(run_id("q")) != UUID(run_id("p"))
    assert run_event(finished(state="aborted"))["eventType"] == "ABORT"


def test_figures_that_are_no_numbers_are_left_out() -> None:
    spoiled = model("r1")
    spoiled["parameters"]["retain_after"] = "nan"
    (made,) = run_event(finished(spoiled))["outputs"]
    assert "retain_after" not in made["facets"][FACET]["figures"]


def test_nothing_personal_is_in_an_event() -> None:
    text = json.dumps(run_event(finished()))
    assert not [one for one in PERSONAL if one in text]


@pytest.mark.parametrize("name", ["r1 -->", "r1|", "", "r1`"])
def test_ids_that_a_document_could_read_otherwise_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="well-formed"):
        finished(model(name, successor=None))
