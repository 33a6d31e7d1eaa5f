"""The page `docs/add_a_loss.md` works: its loss equals a loop, and its model trains with the term and without it."""

import importlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli_runner import call
from test_add_a_model import FILES, ROOT

from athwe_core.models import registry

PAGE = (ROOT / "docs" / "add_a_loss.md").read_text(encoding="utf-8")
SMALL = ("--epochs", "1", "--batch-targets", "256", "--set", "model.hidden_size=8", "--set", "model.inner_size=8")


@pytest.fixture(scope="module")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package of the page, as an installation leaves it; `tests/test_add_a_model.py` runs pip on such a package."""
    site = tmp_path_factory.mktemp("site")
    for path, text in FILES.findall(PAGE):
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text, encoding="utf-8")
    facts = site / "my_loss-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.4\nName: my-loss\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text("[athwe.models]\nmy-sasrec = my_loss:MODEL\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        registry._foreign.cache_clear()
        yield
    registry._foreign.cache_clear()


@pytest.mark.usefixtures("_installed")
def test_the_loss_is_the_mean_squared_length_of_the_states_with_a_target() -> None:
    module = importlib.import_module("my_loss")
    states = torch.tensor([[3.0, 4.0], [1.0, 2.0], [9.0, 9.0]], requires_grad=True)
    loss = module.activation_loss(states, torch.tensor([7, 2, -1]), num_targets=2)
    assert loss.item() == (25 + 5) / 2
    loss.backward()
    assert states.grad is not None
    assert states.grad.tolist() == [[3.0, 4.0], [1.0, 2.0], [0.0, 0.0]]  # 2 s / N


@pytest.mark.usefixtures("_installed")
def test_the_model_of_the_page_trains_with_the_term(tmp_path: Path) -> None:
    assert call(tmp_path, "prepare", "--dataset", "demo", "--users", "150", "--items", "100").exit_code == 0
    trained = call(tmp_path, "train", "--preset", "my-sasrec", "--dataset", "demo", "--name", "first", *SMALL)
    assert trained.exit_code == 0, trained.output
    lines = (tmp_path / "runs" / "demo" / "my-sasrec" / "first" / "metrics.jsonl").read_text().splitlines()
    losses = json.loads(lines[0])["losses"]
    assert losses["total"] == pytest.approx(losses["ce"] + 0.001 * losses["activation"], rel=1e-4)
    commands = [line for line in PAGE.splitlines() if line.startswith(("athwe ablate", "athwe sweep"))]
    assert len(commands) == 2
    for command in commands:
        planned = call(tmp_path, *command.split()[1:], "--dry-run")
        assert planned.exit_code == 0, planned.output
