"""The name that `athwe_core.data.prepare` had in version 0.1.0, for programs written then."""

from athwe_core.data.prepare import PreparedDataset, PrepareOptions, list_versions, open_prepared, prepare

__all__ = ["PrepareOptions", "PreparedDataset", "list_versions", "open_prepared", "prepare"]
