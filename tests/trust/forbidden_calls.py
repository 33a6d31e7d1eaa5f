"""What code must not do with foreign content, found in its syntax tree: imports, calls and names, under whatever alias."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

PICKLES = {
    "pickle",
    "_pickle",
    "cPickle",
    "pickle5",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
}
ONLY_NAMES = {f"pickle.{name}" for name in ("PickleError", "PicklingError", "UnpicklingError")}
"""What others raise."""
WORKERS = {"multiprocessing", "concurrent.futures", "torch.multiprocessing"}
"""They pickle what goes to and comes from processes of their own."""
BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
NAMES = {
    "runs a shell": {
        *("os.system", "os.popen", "os.startfile", "subprocess.getoutput", "subprocess.getstatusoutput"),
        *("asyncio.create_subprocess_shell", "pty.spawn"),
        *(f"os.{kind}{ending}" for kind in ("exec", "spawn") for ending in ("l", "le", "lp", "lpe", "v", "ve", "vp")),
    },
    "builds objects from YAML": {
        *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "unsafe_load_all", "full_load")),
        *(f"yaml.{name}" for name in ("full_load_all", "Loader", "UnsafeLoader", "FullLoader", "CLoader")),
        *(f"yaml.{name}" for name in ("CUnsafeLoader", "CFullLoader", "Unpickler", "add_constructor")),
    },
    "unpickles": {
        *("pandas.read_pickle", "torch.jit.load", "torch.package.PackageImporter", "torch.export.load"),
        *("torch.serialization.add_safe_globals", "torch.serialization.safe_globals", "torch.hub.load"),
        *("numpy.lib.format.read_array", "polars.DataFrame.deserialize", "polars.LazyFrame.deserialize"),
        *("polars.Expr.deserialize", "scipy.io.loadmat"),
    },
    "reads Python literals": {"ast.literal_eval"},
    "reads XML": {"xml.etree.ElementTree.parse", "xml.etree.ElementTree.fromstring", "xml.etree.ElementTree.XML"},
    "unpacks to names in an archive": {"shutil.unpack_archive", "tarfile.open", "tarfile.TarFile"},
    "trusts any server": {"ssl._create_unverified_context", "ssl.CERT_NONE"},
    "takes a name that others may take": {"tempfile.mktemp"},
    "marks text as safe HTML": {"markupsafe.Markup", "jinja2.Markup"},
}
METHODS = {"extractall": "unpacks to names in an archive", "read_pickle": "unpickles", "to_pickle": "pickles"}
REQUIRED = {
    "numpy.load": ("allow_pickle", False),
    "numpy.save": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
    "jinja2.Environment": ("autoescape", True),
}
"""Calls that are safe with this keyword, written out."""
NEVER = {"shell": False, "verify": True, "trust_remote_code": False, "allow_pickle": False, "weights_only": True}
"""Keywords that have this constant value wherever they stand."""


@dataclass(frozen=True)
class Found:
    """A place in a file."""

    line: int
    what: str


def forbidden(source: str) -> Iterator[Found]:
    """Everything in Python source that must not be there, or be permitted by name."""
    tree = ast.parse(source)
    known = _aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (Found(node.lineno, what) for what in _import(node))
        elif isinstance(node, ast.Name | ast.Attribute):
            yield from (Found(node.lineno, what) for what in _name(_dotted(node, known)))
        if isinstance(node, ast.Call):
            yield from (Found(node.lineno, what) for what in _call(node, _dotted(node.func, known)))
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            named = [(key.value, value) for key, value in pairs if isinstance(key, ast.Constant)]
            yield from (Found(value.lineno, what) for key, value in named for what in _keyword(key, value))


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _dotted(node: ast.AST, known: dict[str, str]) -> str:
    """`np.load` as `numpy.load`; a name that is not imported as `builtins.NAME`; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return f"?.{parts[0]}" if parts else ""
    return ".".join([known.get(node.id, f"builtins.{node.id}"), *reversed(parts)])


def _import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    else:
        modules = [f"{node.module}.{alias.name}" for alias in node.names]
    for module in modules:
        if module in ONLY_NAMES:
            continue
        if module.split(".")[0] in PICKLES:
            yield f"imports {module.split('.')[0]}"
        elif worker := next((name for name in WORKERS if f"{module}.".startswith(f"{name}.")), None):
            yield f"imports {worker}"


def _name(name: str) -> Iterator[str]:
    root, _, rest = name.partition(".")
    if root == "builtins" and rest.removeprefix("__builtins__.") in BUILTINS:
        yield f"uses {rest.removeprefix('__builtins__.')}"
    yield from (what for what, names in NAMES.items() if name in names)


def _call(node: ast.Call, name: str) -> Iterator[str]:
    if isinstance(node.func, ast.Attribute) and (what := METHODS.get(node.func.attr)):
        yield what
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in REQUIRED:
        keyword, value = REQUIRED[name]
        if not (isinstance(given.get(keyword), ast.Constant) and given[keyword].value is value):  # type: ignore[attr-defined]
            yield f"calls {name} without {keyword}={value}"
    else:
        yield from (what for keyword, value in given.items() for what in _keyword(keyword, value))


def _keyword(keyword: object, value: ast.AST) -> Iterator[str]:
    if keyword in NEVER and not (isinstance(value, ast.Constant) and value.value is NEVER[keyword]):
        yield f"has {keyword} other than {NEVER[keyword]}"
