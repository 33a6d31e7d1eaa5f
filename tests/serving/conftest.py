import pytest
from library_harness import train_tiny

import athwe_core as athwe
from athwe_core.serving.trained_model import TrainedModel, open_trained


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> athwe.Run:
    """A run of one epoch on demo data of 150 users."""
    return train_tiny(tmp_path_factory.mktemp("serving"), name="served")


@pytest.fixture(scope="session")
def trained(run: athwe.Run) -> TrainedModel:
    return open_trained(run.folder, run.data)
