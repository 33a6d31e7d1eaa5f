"""Tests mirror the sources: athwe_core/a/b.py is tested in tests/a/test_b.py, athwe_cli/b.py in tests/cli/test_b.py."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTED_IN = {
    # one behaviour of two modules
    "athwe_core/__main__.py": "tests/test_documents.py",
    "athwe_cli/__main__.py": "tests/test_documents.py",
    "athwe_core/analysis/benchmark/records.py": "tests/analysis/benchmark/test_scaling.py",
    "athwe_core/analysis/benchmark/scaling_figure.py": "tests/analysis/benchmark/test_scaling.py",
    "athwe_core/analysis/experiments/compared_rows.py": "tests/analysis/experiments/test_comparison.py",
    "athwe_core/analysis/experiments/model_table.py": "tests/cli/test_table1.py",
    "athwe_core/analysis/tuning/launched_trials.py": "tests/analysis/tuning/test_tune.py",
    "athwe_core/analysis/tuning/trials.py": "tests/analysis/tuning/test_tune.py",
    "athwe_core/library_run.py": "tests/test_library.py",
    "athwe_core/config_schema.py": "tests/test_config.py",
    "athwe_core/data/demo/catalogue.py": "tests/data/demo/test_generate.py",
    "athwe_core/data/demo/icons.py": "tests/data/demo/test_pictures.py",
    "athwe_core/data/export/csv.py": "tests/data/export/test_write.py",
    "athwe_core/data/export/recbole.py": "tests/data/export/test_write.py",
    "athwe_core/data/features/collect.py": "tests/data/features/test_build.py",
    "athwe_core/data/features/image_download.py": "tests/data/features/test_download.py",
    "athwe_core/data/features/resumable.py": "tests/data/features/test_encode_text.py",
    "athwe_core/data/interactions.py": "tests/data/test_prepare.py",
    "athwe_core/data/readers/amazon_metadata.py": "tests/data/readers/test_amazon.py",
    "athwe_core/data/readers/table_file.py": "tests/data/readers/test_user_table.py",
    "athwe_core/data/spark/filtering.py": "tests/data/spark/test_engine.py",
    "athwe_core/data/spark/ids.py": "tests/data/spark/test_engine.py",
    "athwe_core/data/spark/order.py": "tests/data/spark/test_engine.py",
    "athwe_core/data/spark/read.py": "tests/data/spark/test_engine.py",
    "athwe_core/data/spark/stage.py": "tests/data/spark/test_engine.py",
    "athwe_core/data/spark/tasks.py": "tests/data/spark/test_engine.py",
    "athwe_core/data/prepared.py": "tests/data/test_prepare.py",
    "athwe_core/models/athwe/parity.py": "tests/models/athwe/test_published.py",
    "athwe_core/losses/next_item.py": "tests/models/athwe/test_objective.py",
    "athwe_core/models/athwe/config.py": "tests/test_config.py",
    "athwe_core/models/athwe/model.py": "tests/models/athwe/test_objective.py",
    "athwe_core/models/athwe/spec.py": "tests/analysis/experiments/test_ablation.py",
    "athwe_core/serving/model_card.py": "tests/serving/test_hub.py",
    "athwe_cli/pages.py": "tests/cli/test_report.py",
    "athwe_cli/experiment_tables.py": "tests/cli/test_experiments.py",
    "athwe_cli/train_run.py": "tests/cli/test_train.py",
    "athwe_cli/train_start.py": "tests/cli/test_train.py",
    "athwe_cli/confirm.py": "tests/cli/test_runs.py",
    "athwe_core/models/golden.py": "tests/models/test_sasrec.py",
    "athwe_core/models/id_model.py": "tests/models/test_sasrec.py",
    "athwe_core/models/parity.py": "tests/models/athwe/test_published.py",
    "athwe_core/models/protocol.py": "tests/models/test_registry.py",
    "athwe_core/models/fearec/config.py": "tests/models/test_fearec.py",
    "athwe_core/models/fearec/network.py": "tests/models/test_fearec.py",
    "athwe_core/models/fearec/published.py": "tests/models/test_fearec.py",
    "athwe_core/models/fearec/same_target.py": "tests/models/test_fearec.py",
    "athwe_core/models/ticoserec/config.py": "tests/models/test_ticoserec.py",
    "athwe_core/models/ticoserec/network.py": "tests/models/test_ticoserec.py",
    "athwe_core/models/ticoserec/published.py": "tests/models/test_ticoserec.py",
    "athwe_core/models/tisasrec/network.py": "tests/models/test_tisasrec.py",
    "athwe_core/models/tisasrec/published.py": "tests/models/test_tisasrec.py",
    "athwe_core/models/missrec/config.py": "tests/models/test_missrec.py",
    "athwe_core/models/missrec/interests.py": "tests/models/test_missrec.py",
    "athwe_core/models/missrec/items.py": "tests/models/test_missrec.py",
    "athwe_core/models/missrec/network.py": "tests/models/test_missrec.py",
    "athwe_core/models/missrec/published.py": "tests/models/test_missrec.py",
    "athwe_core/models/unisrec/config.py": "tests/models/test_unisrec.py",
    "athwe_core/models/unisrec/network.py": "tests/models/test_unisrec.py",
    "athwe_core/models/unisrec/published.py": "tests/models/test_unisrec.py",
    "athwe_core/models/iisan/config.py": "tests/models/test_iisan.py",
    "athwe_core/models/iisan/network.py": "tests/models/test_iisan.py",
    "athwe_core/models/iisan/published.py": "tests/models/test_iisan.py",
    "athwe_core/models/iisan/side_networks.py": "tests/models/test_iisan.py",
    "athwe_core/models/inputs.py": "tests/training/test_loop.py",
    "athwe_core/training/build.py": "tests/training/test_loop.py",
    "athwe_core/training/state.py": "tests/training/test_loop.py",
    "athwe_core/training/tracking/tracker.py": "tests/training/tracking/test_listener.py",
    # shapes of results without behaviour
    "athwe_core/analysis/audit/result.py": "tests/analysis/audit/test_measure.py",
    "athwe_core/analysis/pages/result.py": "tests/analysis/pages/test_report.py",
    "athwe_core/analysis/case_study/result.py": "tests/analysis/case_study/test_study.py",
    # parts of one reader, tested through it
    "athwe_core/data/readers/columns.py": "tests/data/readers/test_user_table.py",
    "athwe_core/data/readers/dates.py": "tests/data/readers/test_times.py",
    "athwe_core/data/readers/ids.py": "tests/data/readers/test_user_table.py",
    "athwe_core/data/readers/item_table.py": "tests/data/readers/test_user_table.py",
    "athwe_core/data/readers/lists.py": "tests/data/readers/test_user_table.py",
    "athwe_core/data/readers/literals.py": "tests/data/readers/test_json_lines.py",
    "athwe_core/data/readers/parts.py": "tests/data/readers/test_detect.py",
    "athwe_core/data/readers/quotes.py": "tests/data/readers/test_delimited.py",
    "athwe_core/data/readers/reading.py": "tests/data/readers/test_lines.py",
    "athwe_core/data/readers/sniff.py": "tests/data/readers/test_detect.py",
    "athwe_core/data/sources/part_file.py": "tests/data/sources/test_fetch.py",
    # needs several processes, a GPU or a network of its own
    "athwe_core/data/features/public_hosts.py": "tests/trust/test_private_hosts.py",
    "athwe_core/losses/residual_triton.py": "tests/losses/test_residual_kernel.py",
    # faults and damage, tested for all files of a kind at once
    "athwe_core/data/features/arrays.py": "tests/robustness/test_fuzz_features.py",
    "athwe_core/data/store/schema.py": "tests/robustness/test_fuzz_store.py",
    "athwe_core/runs/json_files.py": "tests/robustness/test_fuzz_checkpoint.py",
    "athwe_core/runs/schema.py": "tests/robustness/test_fuzz_checkpoint.py",
    # tested through the service
    "athwe_cli/serve/answers.py": "tests/cli/serve/test_api.py",
    "athwe_cli/serve/limits.py": "tests/cli/serve/test_api.py",
    "athwe_cli/serve/metrics.py": "tests/cli/serve/test_api.py",
    "athwe_cli/serve/schemas.py": "tests/cli/serve/test_api.py",
    # tested through the commands
    "athwe_core/analysis/evaluate_run.py": "tests/cli/test_evaluate.py",
}
"""Modules without a mirrored test, by reason, and the file that tests them."""


def mirrored(module: str) -> str:
    """The test file that mirrors a module."""
    package, *folders, name = module.split("/")
    room = ["cli"] if package == "athwe_cli" else []
    return "/".join(["tests", *room, *folders, f"test_{name}"])


MODULES = [
    path.relative_to(ROOT).as_posix()
    for package in ("athwe_core", "athwe_cli")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__init__.py"
]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_test(module: str) -> None:
    test = TESTED_IN.get(module, mirrored(module))
    assert (ROOT / test).exists() or (ROOT / mirrored(module)).exists(), f"{module}: write {mirrored(module)}"


def test_exceptions_are_modules() -> None:
    assert TESTED_IN.keys() <= set(MODULES)
