"""athwe as a library inside another program: in a notebook's event loop, in workers, in forked processes."""

import asyncio
import gzip
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from athwe_core import host_process
from athwe_core.errors import AthweError
from athwe_core.host_process import can_have_children, require_polars, run_coroutine

PREPARE = """
from pathlib import Path
def work(_):
    from athwe_core.data.prepare import prepare
    return len(prepare("toy", data_dir=Path("dataset"), prepared_dir=Path("prepared")).item_tokens)
"""
IN_A_POOL = f"""
import multiprocessing
{PREPARE}
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map_async(work, [1]).get(100)[0])
"""
FROM_STANDARD_INPUT = f"""
{PREPARE}
if __name__ == "__main__":
    print(work(1))
"""
FORKED = """
import os
from pathlib import Path
import polars as pl
from athwe_core import host_process
from athwe_core.data.prepare import prepare
from athwe_core.errors import AthweError
host_process.POLARS_SECONDS = 1.0
used = pl.DataFrame({"a": [1, 2], "b": [1, 2]}).select(pl.col("a").sum(), pl.col("b").sum())
if os.fork() == 0:
    try:
        prepare("toy", data_dir=Path("dataset"), prepared_dir=Path("prepared"))
    except AthweError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


async def answer(seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    return 42


class TestCoroutine:
    def test_without_a_loop(self) -> None:
        assert run_coroutine(answer()) == 42

    def test_inside_a_running_loop_as_in_a_notebook(self) -> None:
        async def cell() -> int:
            return run_coroutine(answer())

        assert asyncio.run(cell()) == 42
        assert not any(thread.name == "athwe-download" for thread in threading.enumerate())

    def test_an_error_comes_through(self) -> None:
        async def fail() -> None:
            raise ZeroDivisionError

        async def cell() -> None:
            run_coroutine(fail())

        with pytest.raises(ZeroDivisionError):
            asyncio.run(cell())

    def test_an_interrupt_cancels_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cleaned = threading.Event()

        async def endless() -> None:
            try:
                await asyncio.sleep(600)
            finally:
                cleaned.set()

        def interrupted(_future: object) -> None:
            time.sleep(0.2)
            raise KeyboardInterrupt

        monkeypatch.setattr("concurrent.futures.Future.result", interrupted)

        async def cell() -> None:
            with pytest.raises(KeyboardInterrupt):
                run_coroutine(endless())

        began = time.monotonic()
        asyncio.run(cell())
        assert time.monotonic() - began < 60
        assert cleaned.is_set()


class TestChildren:
    def test_a_program_with_a_file_can_have_them(self) -> None:
        assert can_have_children()

    def test_a_script_from_standard_input_cannot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        main = sys.modules["__main__"]
        monkeypatch.setattr(main, "__spec__", None)
        monkeypatch.setattr(main, "__file__", "<stdin>", raising=False)
        assert not can_have_children()
        monkeypatch.delattr(main, "__file__")  # a notebook or an interactive session
        assert can_have_children()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Reviews and metadata of 2014, whose Python literals are read in worker processes."""
        (tmp_path / "dataset" / "toy").mkdir(parents=True)
        reviews = (
            {"reviewerID": f"A{user}", "asin": f"B{(user + step) % 6}", "unixReviewTime": 1_400_000_000 + 1000 * step}
            for user in range(7)
            for step in range(6)
        )
        text = "".join(json.dumps(review) + "\n" for review in reviews)
        (tmp_path / "dataset" / "toy" / "reviews_toy_5.json").write_text(text)
        with gzip.open(tmp_path / "dataset" / "toy" / "meta_toy.json.gz", "wt") as file:
            file.writelines(repr({"asin": f"B{item}", "title": f"It's {item}"}) + "\n" for item in range(6))
        return tmp_path

    def python(self, folder: Path, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *arguments]
        return subprocess.run(command, input=text, cwd=folder, capture_output=True, text=True, timeout=100, check=False)

    def test_prepare_in_a_daemonic_worker(self, folder: Path) -> None:
        (folder / "job.py").write_text(IN_A_POOL)
        done = self.python(folder, "job.py")
        assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr

    def test_prepare_in_a_script_from_standard_input(self, folder: Path) -> None:
        done = self.python(folder, "-", text=FROM_STANDARD_INPUT)
        assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr

    def test_prepare_in_a_process_forked_after_polars_was_used(self, folder: Path) -> None:
        done = self.python(folder, "-c", FORKED)
        rule = (
            "this process was forked after polars was used, so that polars would never answer in it. Start workers with"
        )
        assert done.stdout == f"{rule} multiprocessing.get_context('spawn')\n", done.stderr
        assert not (folder / "prepared").exists()


class TestPolars:
    @pytest.fixture(autouse=True)
    def unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_process, "_working", set())

    def test_an_ordinary_process_is_not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_process, "_polars_answers", lambda: pytest.fail("asked"))
        require_polars()

    def test_a_forked_process_where_it_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_process, "_IMPORTED_BY", os.getpid() + 1)
        require_polars()
        monkeypatch.setattr(host_process, "_polars_answers", lambda: pytest.fail("asked twice"))
        require_polars()

    def test_a_forked_process_where_it_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_process, "_IMPORTED_BY", os.getpid() + 1)
        monkeypatch.setattr(host_process, "_polars_answers", lambda: False)
        with pytest.raises(AthweError, match=r"Start workers with multiprocessing\.get_context\('spawn'\)"):
            require_polars()

    def test_a_worker_of_the_fork_method_counts_as_forked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(multiprocessing, "parent_process", object)
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda *, allow_none: "fork")
        monkeypatch.setattr(host_process, "_polars_answers", lambda: False)
        with pytest.raises(AthweError, match="was forked after polars was used"):
            require_polars()
