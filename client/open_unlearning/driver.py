"""A script that runs one trainer of open-unlearning, in its own environment, without Disinherit.

Its argument is a folder with `job.json`, `model`, `forget.safetensors` and `retain.safetensors`.
It writes `changed.safetensors`, the parameters that may change, and `done.json`.  The folder `src`
of open-unlearning is on the path: its packages `trainer` and `data` are those of its `train.py`.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Rows = list[dict[str, Tensor]]

_CLOSE = 0.01  # nats, and relative


def run(folder: Path) -> None:
    """Run the job of a folder.

    Raises:
        SystemExit: with one line, if the model is read otherwise than it was written.
    """
    job = json.loads((folder / "job.json").read_text("utf-8"))
    trainers = importlib.import_module("trainer")
    importlib.import_module("trainer.utils").seed_everything(job["seed"])
    model = _model(folder / "model", job["dtype"], job["may_change"])
    model.to(job["device"])
    forget, retain = _rows(folder / "forget.safetensors"), _rows(folder / "retain.safetensors")
    _check_loss(model, forget[0], job["loss"])
    # Padding is the same for all rows, so batches are stacked; its own collator would take any
    # token with the number of the padding for padding.
    pairs = importlib.import_module("data.unlearn").ForgetRetainDataset(forget, retain or None)
    before = {name: value.detach().cpu().clone() for name, value in model.named_parameters()}
    trainer, _ = trainers.load_trainer(
        trainer_cfg=_config(job, folder), model=model, train_dataset=pairs, data_collator=_stacked
    )
    trainer.train()
    after = {name: value.detach().cpu() for name, value in trainer.model.named_parameters()}
    for name, value in before.items():
        if name not in job["may_change"] and not torch.equal(value, after[name]):
            raise SystemExit(f"it changed {name}, which is not in scope")
    changed = {name: after[name].contiguous() for name in job["may_change"]}
    save_file(changed, str(folder / "changed.safetensors"))
    (folder / "done.json").write_text(json.dumps({"steps": trainer.state.global_step}), "utf-8")


def _model(folder: Path, dtype: str, may_change: list[str]) -> nn.Module:
    transformers = importlib.import_module("transformers")
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder),
        torch_dtype=getattr(torch, dtype),
        local_files_only=True,
        output_loading_info=True,
    )
    named = dict(model.named_parameters())
    odd = [*found["missing_keys"], *found["unexpected_keys"], *sorted({*may_change} - {*named})]
    if odd:
        raise SystemExit(f"transformers {transformers.__version__} has other tensors: {odd[0]}")
    for name, value in named.items():
        value.requires_grad_(name in may_change)
    loaded: nn.Module = model
    return loaded


def _config(job: dict[str, Any], folder: Path) -> Any:
    """Return the configuration of the trainer as the checkout has it, for this machine."""
    hydra = importlib.import_module("hydra")
    with hydra.initialize_config_dir(version_base=None, config_dir=job["configs"]):
        config = hydra.compose(config_name=job["trainer"])
    importlib.import_module("omegaconf").OmegaConf.set_struct(config, False)
    config.setdefault("args", {})
    config.args.update(
        {
            "output_dir": str(folder / "output"),
            "logging_dir": str(folder / "output"),
            "report_to": "none",
            "disable_tqdm": True,
            "do_eval": False,
            "eval_on_start": False,
            "eval_strategy": "no",
            "save_strategy": "no",
            "remove_unused_columns": False,
            "seed": job["seed"],
        }
    )
    if job["device"] == "cpu":
        config.args.update({"use_cpu": True, "bf16": False, "bf16_full_eval": False})
        config.args.optim = "adamw_torch"
    return config


def _rows(file: Path) -> Rows:
    if not file.exists():
        return []
    tensors = load_file(str(file))
    count = len(next(iter(tensors.values())))
    return [{name: value[at] for name, value in tensors.items()} for at in range(count)]


def _stacked(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch of items, which are tensors by name, by `forget` and `retain`."""
    return {
        key: torch.stack([item[key] for item in items])
        if isinstance(items[0][key], Tensor)
        else _stacked([item[key] for item in items])
        for key in items[0]
    }


def _check_loss(model: nn.Module, row: dict[str, Tensor], expected: float) -> None:
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        found = model(**{name: value[None].to(device) for name, value in row.items()}).loss.item()
    if not abs(found - expected) <= _CLOSE * (1 + abs(expected)):
        version = importlib.import_module("transformers").__version__
        raise SystemExit(
            f"transformers {version} computes another loss of the first sample, {found:.3f} "
            f"instead of {expected:.3f}"
        )


if __name__ == "__main__":
    run(Path(sys.argv[1]))
