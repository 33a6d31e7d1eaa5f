"""List the licence of every installed distribution that athwe needs; exit code 1 where one is not compatible with MIT.

    python examples/licences.py
    python examples/licences.py --json

A distribution is needed if `athwe` or one of its extras requires it, directly or indirectly. Its licence is read from its
SPDX expression, else from its classifiers, else from its licence field. The dependencies are installed apart from athwe and
are not part of it. So copyleft of single files (MPL) and of libraries (LGPL) is compatible. Copyleft that extends to programs
which import a library (GPL, AGPL), non-commercial terms and unknown licences are not.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

PROJECT = "athwe"
EXTRAS = ("encoders", "tune", "test")
FREE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "HPND", "ISC", "MIT"),
    *("MIT-0", "MIT-CMU", "NCSA", "PSF-2.0", "Python-2.0", "Unicode-3.0", "Unlicense", "Zlib"),
    *("MPL-2.0", "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later"),
}
"""SPDX identifiers of licences under which an MIT program may need a library."""
FREE_EXCEPTIONS = {"LLVM-exception", "GCC-exception-3.1"}
"""With one of these exceptions, any licence is compatible for programs that use the library."""
BY_NAME = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}
"""Classifiers to SPDX identifiers."""
BY_FIELD = {
    r"Apache( License)?,? ?(Version )?2(\.0)?( License)?|Apache-2": "Apache-2.0",
    r"(The )?MIT( License)?": "MIT",
    r"(New |Modified )?(3-Clause )?BSD( 3-Clause)?( License)?": "BSD-3-Clause",
    r"ISC( License)?": "ISC",
}
"""Patterns of whole licence fields that are not SPDX expressions."""
READ_BY_A_PERSON = {
    "pytorch-wavelets": (
        "MIT",
        "its discrete wavelet transform, all that athwe uses; the dual-tree part is restricted",
    ),
}
"""Distributions whose metadata names another licence than that of the part in use."""
OF_THE_DRIVER = r"nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+"
"""CUDA libraries: proprietary and free to use. torch from the package index installs them; athwe does not distribute them."""


@dataclass(frozen=True)
class Licence:
    """Licence of one distribution.

    Attributes:
        name, version: As installed.
        licence: SPDX expression, or the text of the metadata.
        known_by: Where it was found: expression, classifier, field, person or nothing.
        needed_by: `runtime` or the first extra that needs it.
        is_compatible: Whether an MIT program may require it.
        note: The reason, where the licence alone does not explain the answer.
    """

    name: str
    version: str
    licence: str
    known_by: str
    needed_by: str
    is_compatible: bool
    note: str = ""


def needed(project: str = PROJECT) -> Iterator[tuple[Distribution, str]]:
    """List every installed distribution that the project needs, those of the runtime first.

    Args:
        project: Name of an installed distribution.

    Yields:
        The distribution, and `runtime` or the first extra that needs it.
    """
    seen: set[tuple[str, str]] = set()
    listed: set[str] = {_plain(project)}
    for part in ("", *EXTRAS):
        waiting = [(project, part)]
        while waiting:
            name, extra = waiting.pop()
            if (_plain(name), extra) in seen:
                continue
            seen.add((_plain(name), extra))
            found = distribution(name)
            if _plain(name) not in listed:
                listed.add(_plain(name))
                yield found, part or "runtime"
            for text in found.requires or ():
                requirement = Requirement(text)
                if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                    continue
                if _is_installed(requirement.name):
                    waiting += [(requirement.name, each) for each in ("", *requirement.extras)]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:  # required on other systems or versions of Python only
        return False
    return True


def licence_of(found: Distribution, needed_by: str) -> Licence:
    """Read the licence of a distribution and decide whether it is compatible with MIT.

    Args:
        found: An installed distribution.
        needed_by: `runtime` or the name of an extra.
    """
    text, known_by = _stated(found)
    name, note = _plain(found.name), ""
    if name in READ_BY_A_PERSON:
        text, note = READ_BY_A_PERSON[name]
        known_by = "person"
    is_free = is_compatible(text)
    if re.fullmatch(OF_THE_DRIVER, name) and not is_free:
        is_free, note = True, "proprietary, not part of athwe: installed with torch from the package index, for CUDA"
    return Licence(found.name, found.version, text, known_by, needed_by, is_free, note)


def _stated(found: Distribution) -> tuple[str, str]:
    """SPDX expression, or the text of the metadata, and where it was found."""
    metadata = found.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"], "expression"
    classifiers = [
        text.split(" :: ")[-1] for text in metadata.get_all("Classifier", []) if text.startswith("License ::")
    ]
    classifiers = [text for text in classifiers if text != "OSI Approved"]
    field = metadata["License"].strip() if "License" in metadata else ""
    if field and is_compatible(field):
        return field, "field"
    if classifiers:  # several may mean any or all of them, so all must be free
        return " AND ".join(BY_NAME.get(text, text) for text in classifiers), "classifier"
    if field:
        return next(
            (spdx for words, spdx in BY_FIELD.items() if re.fullmatch(words, field)), field.splitlines()[0]
        ), "field"
    return "unknown", "nothing"


def is_compatible(expression: str) -> bool:
    """Decide whether an MIT program may require a library under this licence.

    Args:
        expression: SPDX expression. Text that is not one is not compatible.
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    try:
        value = _alternatives(tokens)
    except (IndexError, ValueError):
        return False
    return value and not tokens


def _alternatives(tokens: list[str]) -> bool:
    value = _all_of(tokens)
    while tokens and tokens[0] == "OR":
        tokens.pop(0)
        value = _all_of(tokens) or value
    return value


def _all_of(tokens: list[str]) -> bool:
    value = _one(tokens)
    while tokens and tokens[0] == "AND":
        tokens.pop(0)
        value = _one(tokens) and value
    return value


def _one(tokens: list[str]) -> bool:
    token = tokens.pop(0)
    if token == "(":
        value = _alternatives(tokens)
        if tokens.pop(0) != ")":
            raise ValueError("a bracket is not closed")
        return value
    if tokens and tokens[0] == "WITH":
        tokens.pop(0)
        return tokens.pop(0) in FREE_EXCEPTIONS or token in FREE
    return token in FREE


def main() -> int:
    """Print the table; return 1 where a licence is not compatible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    as_json = parser.parse_args().json
    found = [licence_of(each, needed_by) for each, needed_by in needed()]
    refused = [each for each in found if not each.is_compatible]
    if as_json:
        print(
            json.dumps({"distributions": [asdict(each) for each in found], "refused": [each.name for each in refused]})
        )
        return 1 if refused else 0
    for each in sorted(found, key=lambda one: (("runtime", *EXTRAS).index(one.needed_by), one.name.lower())):
        mark = "" if each.is_compatible else "  NOT COMPATIBLE"
        note = f"  ({each.note})" if each.note else ""
        print(f"{each.needed_by:9} {each.name:24} {each.version:16} {each.licence[:60]}{note}{mark}")
    print(f"{len(found)} distributions, {len(refused)} not compatible with MIT")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
