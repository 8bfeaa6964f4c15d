"""Owner of models of transformers and PEFT, whose samples are rows of data sets."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from disinherit.client.huggingface.batches import (
    BATCH,
    Collate,
    count_classes,
    make_loader,
    pairs_of,
    some_rows,
)
from disinherit.client.huggingface.cards import supersede_card
from disinherit.client.huggingface.forms import Form, answering, original
from disinherit.client.huggingface.hub_folders import hub_name
from disinherit.client.huggingface.kept_models import KeptModel, Retrain
from disinherit.client.huggingface.models import with_weights, without_weights
from disinherit.client.huggingface.names import (
    fill_unused,
    own_weights,
    trainable,
    without_tied_names,
)
from disinherit.client.huggingface.saving import save_version
from disinherit.client.huggingface.sources import ModelSource, opened_source
from disinherit.client.owner.owner import Batches
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DataError, InputError
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.identity import manifest_digest
from disinherit.common.tensors.stored import manifest_of, without_values


class HuggingFaceOwner:
    """An owner of models of transformers and PEFT (`disinherit.Owner`).

    Sequence classifiers, image classifiers and causal language models, with or without an adapter
    in their layers.  A sample of a language model is a sequence: its loss is the mean of those of
    its tokens, and it is named by its own label if these have a probability above 1/2 in their
    geometric mean.  A model with an adapter has the tensors of its base under their names there,
    frozen, and those of the adapter.  So a change of the base is inherited through the edge from
    it, and where the adapter is a root, only its own tensors are trained.

    Args:
        store: keeps the versions.
        device: where to compute.

    Attributes:
        store: keeps the versions.
        device: where to compute.
    """

    def __init__(self, store: ModelStore, device: torch.device | str = "cpu") -> None:
        self.store = store
        self.device = torch.device(device)
        self._kept: dict[str, KeptModel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def add(
        self,
        model_id: str,
        model: str | Path | nn.Module,
        training: Any = None,
        *,
        tuning: Any = None,
        evaluation: Any = None,
        ids: str = "",
        collate: Collate | None = None,
        batch_size: int = BATCH,
        retrain: Retrain | None = None,
        curvature: bool = False,
    ) -> ModelRecord:
        """Add a model with its data, and return its record for the inheritance graph.

        It is added anew whenever the owner is opened; the store has its versions then.

        Args:
            model_id: what to call it.
            model: a folder of `save_pretrained`, an id in the local cache of the hub, or the model
                itself, which is copied.
            training: what it was trained on directly: a data set with rows and indices, such as
                `datasets.Dataset`, or a `DataLoader` over one.
            tuning: held-out data to choose strengths by.
            evaluation: other held-out data to measure by.
            ids: column with the ids of training samples, each of which is one sample's in all
                models of the owner. By default the ids are digests of content (`ids_of`).
            collate: makes a batch of rows, such as a data collator of transformers.
            batch_size: samples of a batch.
            retrain: trains the model again exactly as it was trained: called with the training data
                set without some rows, or with `None` for what training started from. It returns the
                model, or its state_dict.
            curvature: whether to register its curvature with its Fisher summary, for root method
                `ekfac`. For a layer with o outputs and d inputs that is o² + d² + o d numbers.

        Raises:
            InputError: if the model is of another kind, is not here, or is quantised and not a
                folder; or if the id has a `~`.
            CheckpointError: if its folder cannot be loaded.
            DataError: if rows lack inputs or labels, or there is no data at all.
            StoreError: if the id is taken by other weights.
        """
        if "~" in model_id:
            raise InputError(
                f"Expected an id without '~', which begins that of a request, but got {model_id!r}."
            )
        data = {"training": training, "tuning": tuning, "evaluation": evaluation}
        with opened_source(model_id, model) as source:
            loaders: dict[str, DataLoader[Any] | None] = dict.fromkeys(data)
            form: Form | None = None
            for what, rows in data.items():
                if rows is not None:
                    made = make_loader(
                        rows, source.model, collate=collate, batch_size=batch_size, form=form
                    )
                    loaders[what], form = made, pairs_of(made).form
            if form is None:
                raise DataError(
                    f"Expected some data of model {model_id!r}, to see how it is called, but got "
                    "none. Give a few rows as evaluation data."
                )
            self._kept[model_id] = KeptModel(
                hollow=trainable(without_weights(source.model)),
                form=form,
                column=ids,
                retrain=retrain,
                folder=source.folder,
                origin="" if isinstance(model, nn.Module) else hub_name(model),
                curvature=curvature,
                **loaders,
            )
            return self._register(model_id, source, self._kept[model_id])

    def _register(self, model_id: str, source: ModelSource, kept: KeptModel) -> ModelRecord:
        """Store a model, unless it is there, and return its record."""
        digest = manifest_digest(manifest_of(source.weights))
        for record in self.store.records():
            if (record.id, record.digest) == (model_id, digest):
                return record
        provenance = None
        if kept.training is not None:
            provenance = Provenance("rows", count_classes(kept.training, kept.form.labels))
        record = ModelRecord(
            id=model_id,
            owner=self.store.owner,
            architecture=architecture_fingerprint(without_values(source.weights, source.weights)),
            labels=kept.form.labels,
            digest=digest,
            created_us=time.time_ns() // 1000,
            provenance=provenance,
        )
        return self.store.add(record, source.weights)

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a module of the model's architecture; its weights are overwritten."""
        kept = self._of(record)
        return answering(with_weights(kept.hollow), kept.form)

    def outline(self, record: ModelRecord) -> nn.Module:
        """Return a module of the model's architecture whose parameters take no memory."""
        kept = self._of(record)
        return answering(without_weights(kept.hollow), kept.form)

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return exactly the data of the model's direct training; `None` if it is gone."""
        return self._of(record).training

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return held-out data to choose strengths by; `None` without any."""
        return self._of(record).tuning

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return held-out data to measure by; `None` without any."""
        return self._of(record).evaluation

    def sample_ids(self, record: ModelRecord) -> Mapping[str, Sequence[int]]:
        """Return the ids of all samples of the model's direct training, with their indices.

        It is empty if they are gone.  Where no column names them, samples of the same content have
        one id.
        """
        return self._of(record).places

    def ids_of(self, record: ModelRecord, indices: Iterable[int]) -> list[str]:
        """Return the ids, as requests name them, of the training samples at some indices.

        Args:
            record: the model.
            indices: in the data set, from 0 on.

        Raises:
            DataError: if there is no such index, or the data is gone.
        """
        ids = {index: id for id, some in self.sample_ids(record).items() for index in some}
        chosen = [*indices]
        if missing := [index for index in chosen if index not in ids]:
            raise DataError(
                f"Expected indices of {len(ids)} training samples of model {record.id!r}, from 0 "
                f"on, but got {missing[0]}."
            )
        return [ids[index] for index in chosen]

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        """Split the model's direct training data into some samples and all others.

        Both are in the order of the data set: that of a request's digests is another in each store.

        Raises:
            DataError: if the data is gone.
        """
        kept = self._of(record)
        if kept.training is None:
            raise DataError(f"Expected training data of model {record.id!r}, but it is gone.")
        chosen = kept.places_of(samples)
        rows: Any = kept.training.dataset
        others = [index for index in range(len(rows)) if index not in chosen]
        return some_rows(kept.training, sorted(chosen)), some_rows(kept.training, others)

    def keeps_curvature(self, record: ModelRecord) -> bool:
        """Return whether the model was added with its curvature to be registered."""
        return self._of(record).curvature

    def can_retrain(self, record: ModelRecord) -> bool:
        """Return whether the model was added with a way to train it again."""
        return self._of(record).retrain is not None

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        """Return the weights that the model's own training gives without some of its samples."""
        kept = self._of(record)
        assert kept.retrain is not None
        rows = None
        if without is not None and kept.training is not None:
            left_out = kept.places_of(without)
            data: Any = kept.training.dataset
            places = [index for index in range(len(data)) if index not in left_out]
            rows = data.select(places) if hasattr(data, "select") else Subset(data, places)
        made = kept.retrain(rows)
        if isinstance(made, nn.Module):
            return own_weights(made)
        return without_tied_names(kept.hollow, made)

    def load(self, model_id: str) -> nn.Module:
        """Return a version as the model that transformers, or PEFT, has.

        With its adapter disabled, a layer in `modules_to_save` is that of the adapter: the one that
        it replaces is not kept.

        Raises:
            StoreError: if the version does not exist.
        """
        record = self.store.record(model_id)
        kept = self._of(record)
        whole = with_weights(kept.hollow)
        inner: Any = answering(whole, kept.form)
        with self.store.opened(model_id) as weights:
            inner.load_each(weights)
        original(inner)
        fill_unused(whole)
        return whole.eval()

    def save(
        self,
        model_id: str,
        folder: str | Path,
        *,
        base_model: str = "",
        attestation: str = "",
        max_shard_size: str = "5GB",
    ) -> None:
        """Write a version into a new folder, from which `from_pretrained` loads it.

        Tokenizer, configuration, licence and card are those of the folder that the model came from;
        nothing else of it is copied.  The card gets what the version was made of, tags, the
        requests, and where the attestation is.  An adapter whose base has changed is written with
        it, in the folder `base`.  If it fails, nothing is left in the folder.

        Args:
            model_id: the version.
            folder: the new folder.
            base_model: id on the hub of what it was made of, for the card; by default that by which
                the model was added, else what the card has. Of an adapter it is the id under which
                its base is published, for its configuration, too; by default that is as it was, or
                the folder `base`. Of a quantised copy it is its original.
            attestation: where the attestation of the request is, for the card.
            max_shard_size: largest file of weights.

        Raises:
            InputError: if there is something in the folder, the card cannot be read, or
                `base_model` is the base of before, whose weights are other ones.
            StoreError: if the version does not exist.
        """
        record = self.store.record(model_id)
        kept = self._of(record)
        is_adapter = hasattr(kept.hollow, "peft_config")
        save_version(
            model_id,
            kept,
            Path(folder),
            partial(self.load, model_id),
            self.store.made_by(model_id),
            has_new_base=is_adapter and self._has_changed_base(record, kept),
            base_model=base_model,
            attestation=attestation,
            max_shard_size=max_shard_size,
        )

    def supersede(self, model_id: str, new_version: str) -> None:
        """Name the new version in the card of the folder that a model came from.

        Args:
            model_id: the model.
            new_version: id on the hub, or path, of the new version.

        Raises:
            InputError: if it came from no folder, from the cache of the hub, or its card cannot be
                read; or if it is a version that a request made, whose folder `save` wrote.
        """
        if "~" in model_id:
            raise InputError(
                f"Expected a model as it was added, but {model_id!r} was made by a request. Write "
                f"new_version: {new_version} into the card in the folder that it was saved to."
            )
        folder = self._of(self.store.record(model_id)).folder
        if folder is None:
            raise InputError(f"Expected model {model_id!r} to come from a folder, but it did not.")
        supersede_card(folder, new_version)

    def _has_changed_base(self, record: ModelRecord, kept: KeptModel) -> bool:
        made_by = self.store.made_by(record.id)
        if not made_by:
            return False
        inner = self.outline(record)
        trained = {name for name, value in inner.named_parameters() if value.requires_grad}
        with (
            self.store.opened(made_by[-1].model_id) as before,
            self.store.opened(record.id) as after,
        ):
            lines, others = manifest_of(before), manifest_of(after)
        return any(line != others[name] for name, line in lines.items() if name not in trained)

    def _of(self, record: ModelRecord) -> KeptModel:
        name = record.id.partition("~")[0]
        if name not in self._kept:
            raise InputError(
                f"Expected model {name!r} with its data, but it was not added to its owner since "
                "that was opened. Add it in the function that opens the owner."
            )
        return self._kept[name]
