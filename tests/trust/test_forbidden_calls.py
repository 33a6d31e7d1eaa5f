"""No pickle, no eval, no yaml.load; `torch.load` with `weights_only=True` only; and all that is like them."""

import ast
import re
from pathlib import Path

import pytest
from forbidden_calls import forbidden

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("athwe_core", "athwe_cli", "examples") for path in (ROOT / folder).rglob("*.py"))
TEMPLATES = ROOT / "athwe_core" / "analysis" / "pages" / "templates"
PERMITTED = {
    (
        "athwe_core/data/readers/literals.py",
        "reads Python literals",
    ): "lines of old dumps; it runs nothing, is bounded",
    (
        "athwe_core/data/readers/amazon_metadata.py",
        "imports concurrent.futures",
    ): "texts to and rows from processes of its own",
    ("athwe_core/data/readers/amazon_metadata.py", "imports multiprocessing"): "the same",
    ("athwe_core/evaluation/blocks.py", "imports concurrent.futures"): "threads: nothing is pickled between them",
    ("athwe_core/serving/batching.py", "imports concurrent.futures"): "futures of a thread: nothing is pickled",
    ("athwe_core/serving/service.py", "imports concurrent.futures"): "the same",
    ("athwe_core/training/batches.py", "imports concurrent.futures"): "a thread: nothing is pickled",
    ("athwe_cli/serve/arrivals.py", "imports concurrent.futures"): "the same",
    ("athwe_core/host_process.py", "imports multiprocessing"): "asks whether this process is a worker; it starts none",
    ("athwe_core/analysis/figures/save.py", "reads XML"): "a figure that matplotlib drew a moment before",
    ("athwe_core/analysis/pages/html.py", "marks text as safe HTML"): "own style and script, escaped JSON, own figures",
    ("athwe_core/analysis/pages/download.py", "marks text as safe HTML"): "an own figure",
}
"""Place and deed to the reason why it may stay."""


PERMITTED_IN_SCRIPTS = {"explore.js": ["parseFromString"]}
"""The service's own page gets recommendations from it as a part of the page, whose values a template has escaped."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_forbidden_is_done(path: Path) -> None:
    found = [
        found for found in forbidden(path.read_text(encoding="utf-8")) if (relative(path), found.what) not in PERMITTED
    ]
    assert found == []


def test_what_is_permitted_is_still_needed() -> None:
    done = {(relative(path), found.what) for path in SOURCES for found in forbidden(path.read_text(encoding="utf-8"))}
    assert set(PERMITTED) - done == set()


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle", "imports pickle"),
        ("def f():\n    from cloudpickle import loads", "imports cloudpickle"),
        ("from pickle import UnpicklingError, loads", "imports pickle"),
        ("import marshal as m", "imports marshal"),
        ("from concurrent.futures import ProcessPoolExecutor", "imports concurrent.futures"),
        ("from concurrent import futures", "imports concurrent.futures"),
        ("import torch.multiprocessing as mp", "imports torch.multiprocessing"),
        ("eval(text)", "uses eval"),
        ("list(map(eval, rows))", "uses eval"),
        ("exec(text)", "uses exec"),
        ("compile(text, '', 'eval')", "uses compile"),
        ("__import__(name)", "uses __import__"),
        ("import builtins\nbuiltins.eval(text)", "uses eval"),
        ("__builtins__.eval(text)", "uses eval"),
        ("import yaml\nyaml.load(text, yaml.SafeLoader)", "builds objects from YAML"),
        ("import yaml as y\ny.unsafe_load(text)", "builds objects from YAML"),
        ("from yaml import full_load as read\nread(text)", "builds objects from YAML"),
        ("import yaml\nclass Mine(yaml.Loader): pass", "builds objects from YAML"),
        ("import os\nos.system(text)", "runs a shell"),
        ("from os import popen\npopen(text)", "runs a shell"),
        ("import os\nos.execvp(name, names)", "runs a shell"),
        ("import subprocess\nsubprocess.run(text, shell=True)", "has shell other than False"),
        ("import subprocess\nsubprocess.run(text, shell=how)", "has shell other than False"),
        ("import subprocess\nsubprocess.run(text, **{'shell': True})", "has shell other than False"),
        ("import subprocess\nsubprocess.getoutput(text)", "runs a shell"),
        ("import numpy as np\nnp.load(path)", "calls numpy.load without allow_pickle=False"),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", "calls numpy.load without allow_pickle=False"),
        ("import numpy as np\nnp.load(path, allow_pickle=how)", "calls numpy.load without allow_pickle=False"),
        ("from numpy import load\nload(path)", "calls numpy.load without allow_pickle=False"),
        ("import numpy as np\nnp.save(path, rows)", "calls numpy.save without allow_pickle=False"),
        ("import torch\ntorch.load(path)", "calls torch.load without weights_only=True"),
        ("import torch\ntorch.load(path, weights_only=False)", "calls torch.load without weights_only=True"),
        ("from torch import load as read\nread(path, **how)", "calls torch.load without weights_only=True"),
        ("import torch\ntorch.jit.load(path)", "unpickles"),
        ("from torch.serialization import add_safe_globals\nadd_safe_globals([x])", "unpickles"),
        ("load(path, weights_only=False)", "has weights_only other than True"),
        ("how = {'allow_pickle': True}", "has allow_pickle other than False"),
        ("import polars as pl\npl.DataFrame.deserialize(path)", "unpickles"),
        ("import pandas\npandas.read_pickle(path)", "unpickles"),
        ("frame.to_pickle(path)", "pickles"),
        ("import ast\nast.literal_eval(text)", "reads Python literals"),
        ("import xml.etree.ElementTree as ET\nET.fromstring(text)", "reads XML"),
        ("archive.extractall(folder)", "unpacks to names in an archive"),
        ("import zipfile\nzipfile.ZipFile(path).extractall()", "unpacks to names in an archive"),
        ("import shutil\nshutil.unpack_archive(path)", "unpacks to names in an archive"),
        ("httpx.get(url, verify=False)", "has verify other than True"),
        ("Auto.from_pretrained(name, trust_remote_code=True)", "has trust_remote_code other than False"),
        ("import tempfile\ntempfile.mktemp()", "takes a name that others may take"),
        ("from jinja2 import Environment\nEnvironment(loader=x)", "calls jinja2.Environment without autoescape=True"),
        ("from markupsafe import Markup\nMarkup(title)", "marks text as safe HTML"),
    ],
)
def test_each_kind_is_noticed(source: str, what: str) -> None:
    assert what in {found.what for found in forbidden(source)}


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile(text)",
        "from re import compile\ncompile(text)",
        "network.eval()",
        "import yaml\nyaml.safe_load(text)\nclass Mine(yaml.SafeLoader): pass",
        "import subprocess\nsubprocess.run(['git', name], shell=False)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import torch\ntorch.load(path, weights_only=True)\ntorch.save(x, path)",
        "from safetensors.torch import load_file\nload_file(path)",
        "import json\njson.load(file)",
        "from pickle import UnpicklingError",
        "evaluate(x), my.exec_all(x), self.compile(x)",
        "# eval(text)\n'''pickle.loads'''",
    ],
)
def test_what_is_safe_is_left_alone(source: str) -> None:
    assert list(forbidden(source)) == []


@pytest.mark.parametrize("path", sorted(TEMPLATES.iterdir()), ids=lambda path: path.name)
def test_templates_and_their_script_build_no_markup_from_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|\bon[a-z]+\s*=\s*[\"']|javascript:|\bstyle\s*=\s*[\"']", text)
    script = (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "srcdoc",
        "parseFromString",
    )
    assert [name for name in script if name in text] == PERMITTED_IN_SCRIPTS.get(path.name, [])
    assert not re.search(r"set(Timeout|Interval)\((?!\(\) =>)", text)  # a text there would be run


def test_every_figure_marked_as_safe_is_drawn_here() -> None:
    """`Markup` takes what is escaped or made here: own files, `script_json` and `inline_svg`, each call read by a person."""
    calls = {
        f"{path.stem}: {ast.unparse(node.args[0])}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Markup"
    }
    assert calls == {
        "download: inline_svg(figure, title=title, description=description)",
        "html: ''.join((_HIDDEN_IN_JSON.get(character, character) for character in text))",
        "html: (TEMPLATES / name).read_text(encoding='utf-8')",
    }
