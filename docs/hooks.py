"""Links of the pages that leave `docs/` point to the repository on the site."""

import re
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Replace `](../examples/results.md)` by the file's address in the repository.

    Args:
        markdown: text of the page.
        page: its place; each folder below `docs/` is one more `../`.
        config: of the site, with `repo_url`.
    Returns: the text.
    """
    up = "../" * (page.file.src_uri.count("/") + 1)
    return re.sub(rf"\]\({re.escape(up)}(?!\.)", f"]({config.repo_url}/blob/main/", markdown)
