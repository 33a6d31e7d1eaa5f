import pytest

from athwe_core.data.prepared import PreparedDataset, PrepareOptions, prepare


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """A demo data set of 150 users."""
    folder = tmp_path_factory.mktemp("prepared")
    options = PrepareOptions(demo_users=150, demo_items=100)
    return prepare("demo", data_dir=folder, prepared_dir=folder, options=options)
