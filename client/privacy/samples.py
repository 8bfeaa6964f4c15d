"""Samples to forget: salted digests outside the owner, ids inside."""

import logging
from collections.abc import Iterable, Sequence

from disinherit.client.owner.owner import Batches, Owner, ResolvesSamples
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import DataError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.wire.samples import SampleDigests, digest_sample, same_id

_log = logging.getLogger(__name__)


def resolve_samples(owner: Owner, record: ModelRecord, listed: SampleDigests) -> list[str]:
    """Return the ids of the samples in a request.

    Args:
        owner: the owner of the model.
        record: a model trained on them directly.
        listed: the samples.

    Returns:
        One id per digest, in order; unmatched digests are skipped if they are to be ignored.

    Raises:
        DataError: if the owner has no sample ids, a digest matches no sample of the model and must
            not be ignored, or no digest matches.
    """
    knowing = _with_sample_ids(owner, record)
    key = sample_key(owner.store.root)
    known: dict[str, str] = {}
    for sample in knowing.sample_ids(record):
        digest = digest_sample(key, listed.salt, sample)
        if known.setdefault(digest, sample) != sample:
            raise DataError(
                f"Expected the training samples of model {record.id!r} to have different ids, but "
                "two differ in accents or blanks alone. Give them others."
            )
    missing = [digest for digest in listed.digests if digest not in known]
    if missing and (not listed.ignore_unknown or len(missing) == len(listed.digests)):
        raise DataError(
            f"Expected digests of samples that model {record.id!r} was trained on directly, but "
            f"{len(missing)} of {len(listed.digests)} are of none, the first {missing[0][:16]}.... "
            f"Make them with `disinherit samples digest` at {owner.store.owner}, from the ids of "
            "that model's samples, or submit the request with --ignore-unknown to go on with the "
            "others."
        )
    return [known[digest] for digest in listed.digests if digest in known]


def unknown_ids(owner: Owner, record: ModelRecord, ids: Iterable[str]) -> list[str]:
    """Return the ids that belong to no sample of a model's direct training.

    Args:
        owner: the owner of the model.
        record: the model.
        ids: ids of samples, in any spelling.

    Raises:
        DataError: if the owner has no sample ids.
    """
    known = {same_id(sample) for sample in _with_sample_ids(owner, record).sample_ids(record)}
    return [sample for sample in ids if same_id(sample) not in known]


def known_samples(
    owner: Owner,
    record: ModelRecord,
    listed: Sequence[SampleDigests],
    among: Iterable[str] | None = None,
) -> list[str]:
    """Return the ids of a model's training samples that earlier requests named.

    Args:
        owner: the owner of the model.
        record: the model.
        listed: the samples of each request; samples no longer in the data are skipped.
        among: ids of the model's samples to look among; `None` for all.

    Raises:
        DataError: if the owner has no sample ids.
    """
    if not listed:
        return []
    if not isinstance(owner, ResolvesSamples):
        raise DataError(
            f"Expected {owner.store.owner} to know its samples by id, to leave out those that were "
            f"forgotten on the way to model {record.id!r}, but it does not. Give its owner "
            "`sample_ids` and `split_training_data`."
        )
    key = sample_key(owner.store.root)
    asked = [(one.salt, set(one.digests)) for one in listed]
    return [
        id
        for id in (owner.sample_ids(record) if among is None else among)
        if any(digest_sample(key, salt, id) in digests for salt, digests in asked)
    ]


def split_by_ids(owner: Owner, record: ModelRecord, ids: Sequence[str]) -> tuple[Batches, Batches]:
    """Return some training samples of a model, by ids from `resolve_samples`, and all others.

    Errors of the owner's code may contain ids, so they go to the owner's log only.

    Raises:
        DataError: if the owner has no sample ids, or cannot provide the samples.
    """
    knowing = _with_sample_ids(owner, record)
    try:
        return knowing.split_training_data(record, ids)
    except Exception as error:
        _log.exception("Cannot split the training data of model %s", record.id)
        raise DataError(
            f"Expected the training data of model {record.id!r} in two parts, but its owner "
            "cannot give them. The owner's log has the reason."
        ) from error


def _with_sample_ids(owner: Owner, record: ModelRecord) -> ResolvesSamples:
    if not isinstance(owner, ResolvesSamples):
        raise DataError(
            f"Expected {owner.store.owner} to know its samples by id, to forget some of model "
            f"{record.id!r}, but it does not. Give its owner `sample_ids` and "
            "`split_training_data`, or forget whole classes."
        )
    return owner
