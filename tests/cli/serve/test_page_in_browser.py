"""The page to try runs as a person meets it: by mouse, keyboard and touch, wide and narrow, light and dark."""

import json
from collections.abc import Iterator
from urllib.parse import unquote

import numpy as np
import pytest
from browser_harness import CONTRAST, DESKTOP, PHONE, Browser, chromium
from library_harness import train_tiny
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from serve_harness import Running, running

import athwe_core as athwe
from athwe_core.data.features.image_files import ImageSource
from athwe_core.serving.service import RunSource

pytestmark = pytest.mark.browser
IS_SETTLED = "return document.querySelector('#results .top-items') && results.ariaBusy === 'false'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def two(run: athwe.Run, source: RunSource, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two runs; three of four items have a picture, and one picture is broken."""
    train_tiny(source.runs_dir.parent, preset="hm4sr", name="second")
    folder = tmp_path_factory.mktemp("pictures")
    for number, item in enumerate(run.data.item_tokens[1:]):
        if number % 4:
            Image.new("RGB", (200, 120), (number % 256, 90, 160)).save(folder / f"{item}.jpg")
    (folder / f"{run.data.item_tokens[2]}.jpg").write_text("no picture")
    pictures = ImageSource.open(folder)
    with running(RunSource(("first", "second"), None, source.runs_dir, source.prepared_dir, images=pictures)) as found:
        yield found


def address(served: Running, run: athwe.Run, *numbers: int) -> str:
    """The page with a history of items by number, a day apart."""
    items = [[run.data.item_tokens[item], 1_400_000_000 + 86_400 * at] for at, item in enumerate(numbers)]
    return f"{served.url}/#{json.dumps({'user': None, 'items': items, 'target': None})}"


def open_page(browser: Browser, address: str, **options: object) -> None:
    browser.open(address, **options)  # type: ignore[arg-type]
    settle(browser)


def settle(browser: Browser) -> None:
    """Wait for what the last action brings."""
    browser.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    browser.until(IS_SETTLED)


def shared(browser: Browser) -> list[list[object]]:
    """Items and times that the address of the page holds."""
    state: dict[str, list[list[object]]] = json.loads(unquote(browser.run("return location.hash")).removeprefix("#"))
    return state["items"]


def titles(browser: Browser) -> list[str]:
    return [element.text for element in browser.all(".event .title")]


def recommended(browser: Browser) -> list[str]:
    """Item ids of the first run's list."""
    found: list[str] = browser.run(
        "return [...document.querySelector('.top-items').children].map((line) => line.dataset.item)"
    )
    return found


def expected(run: athwe.Run, events: list[list[object]], k: int = 10) -> list[str]:
    items, times = zip(*events, strict=True)
    rows = {"user_id": ["me"] * len(items), "item_id": items, "timestamp": times}
    return run.recommend(histories=rows, k=k)["item_id"].to_list()


@pytest.mark.parametrize(("width", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
@pytest.mark.parametrize("path", ["page", "docs"])
def test_quiet_within_its_width_and_legible(
    browser: Browser, two: Running, run: athwe.Run, path: str, width: int, scheme: str
) -> None:
    if path == "page":
        open_page(browser, address(two, run, 3, 9, 4, 2), width=width, scheme=scheme)
        browser.click(browser.one("#search"))
        browser.until("return document.querySelectorAll('.found-items button').length === 20")
    else:
        browser.open(f"{two.url}/docs", width=width, scheme=scheme)
    assert [line for line in browser.console() if "404" not in line] == []  # the broken picture
    assert browser.run("return document.scrollingElement.scrollWidth") <= width
    found = browser.run(CONTRAST)
    assert len(found) > 60
    assert [entry for entry in found if entry[0] < 4.5 and entry[1] != "OPTION"] == []
    assert two.errors == []


def test_a_history_is_built_by_searching_and_clicking(browser: Browser, two: Running, run: athwe.Run) -> None:
    open_page(browser, address(two, run, 3))
    browser.click(browser.one("#clear"))
    browser.until("return document.querySelector('#results .empty')")
    table = run.data.item_table()
    browser.one("#search").send_keys(table["title"][7])
    browser.until("return document.querySelectorAll('.found-items button').length === 1")
    browser.press(Keys.ARROW_DOWN)
    browser.press(Keys.ENTER)
    settle(browser)
    assert titles(browser) == [table["title"][7]]
    browser.press(Keys.ESCAPE)
    assert not browser.one("#found").is_displayed()
    browser.click(browser.all("[data-act=add]")[2])
    settle(browser)
    events = shared(browser)
    assert len(events) == 2
    assert int(str(events[1][1])) - int(str(events[0][1])) == 86_400
    assert recommended(browser) == expected(run, events)
    assert browser.one("#status").text.startswith("Added ")


def test_a_user_comes_with_what_came_next(browser: Browser, two: Running, run: athwe.Run) -> None:
    open_page(browser, address(two, run, 3))
    user, number = run.data.user_tokens[5], 5
    field = browser.one("#user")
    field.clear()
    field.send_keys(user, Keys.TAB)
    browser.until("return !document.getElementById('next').hidden")
    settle(browser)
    span = slice(run.data.offsets[number], run.data.offsets[number + 1])
    items = [run.data.item_tokens[item] for item in run.data.item_ids[span]]
    assert [item for item, _ in shared(browser)] == items[:-1]
    notes = [note.text for note in browser.all(".columns .note")]
    assert len(notes) == 2
    assert all(note.startswith("What came next has rank ") for note in notes)
    browser.click(browser.one("#next button"))
    settle(browser)
    assert browser.all(".columns .note") == []
    browser.click(browser.one("#any-user"))
    browser.until("return !document.getElementById('next').hidden")
    assert browser.one("#user").get_property("value") in run.data.user_tokens


@pytest.mark.parametrize("way", ["mouse", "arrows", "buttons"])
def test_items_change_places_and_times_stay(browser: Browser, two: Running, run: athwe.Run, way: str) -> None:
    open_page(browser, address(two, run, 3, 9, 4, 2))
    before = shared(browser)
    grips = browser.all(".grip")
    if way == "mouse":
        ActionChains(browser.driver).drag_and_drop(grips[3], grips[1]).perform()
    elif way == "arrows":
        browser.run("arguments[0].focus()", grips[3])
        browser.press(Keys.ARROW_UP)
        browser.press(Keys.ARROW_UP)
    else:
        browser.click(browser.one("[data-key=up-3]"))
        assert browser.focused.get_attribute("data-key") == "up-2"
        browser.press(Keys.ENTER)
    settle(browser)
    after = shared(browser)
    assert [item for item, _ in after] == [before[at][0] for at in (0, 3, 1, 2)]
    assert [time for _, time in after] == [time for _, time in before]
    assert recommended(browser) == expected(run, after)
    assert browser.one("#status").text.endswith("is item 2 of 4 now.")


def test_another_gap_moves_what_comes_later(browser: Browser, two: Running, run: athwe.Run) -> None:
    open_page(browser, address(two, run, 3, 9, 4))
    first, second, third = (int(str(time)) for _, time in shared(browser))
    amount, unit = browser.one("[data-key=gap-1]"), browser.one("[data-key=unit-1]")
    assert (amount.get_property("value"), unit.get_property("value")) == ("1", "days")
    amount.clear()
    amount.send_keys("30")
    unit.send_keys("minutes")
    settle(browser)
    events = shared(browser)
    assert [time for _, time in events] == [first, first + 1800, first + 1800 + third - second]
    assert recommended(browser) == expected(run, events)
    browser.click(browser.one("[data-key=remove-1]"))
    settle(browser)
    assert [time for _, time in shared(browser)] == [first, first + 1800 + third - second]
    browser.run("start.value = '2012-05-06'; start.dispatchEvent(new Event('change'))")
    settle(browser)
    assert browser.all(".event .sub")[0].text == "2012-05-06"


def test_any_recommendation_is_explained_and_keeps_the_focus(browser: Browser, two: Running, run: athwe.Run) -> None:
    open_page(browser, address(two, run, 3, 9, 4))
    wanted = browser.all("[data-act=why]")[3]
    title = browser.all(".top-items .title")[3].text
    browser.click(wanted)
    settle(browser)
    browser.until("return document.querySelector('#why-1 .note').textContent.startsWith('The item you chose, rank 4')")
    assert browser.one("#why-1 .subject .title").text == title
    assert browser.focused.get_attribute("aria-label") == f"Explain {title}"
    assert browser.focused.get_attribute("aria-pressed") == "true"
    second = browser.all("[role=tab]")[1]
    browser.click(second)
    assert [panel.is_displayed() for panel in browser.all(".why")] == [False, True]
    browser.click(browser.all("[data-act=why]")[0])
    settle(browser)
    assert [panel.is_displayed() for panel in browser.all(".why")] == [False, True]  # the run that was chosen
    assert browser.all(".panel-influence")


def test_places_are_compared_with_those_before_the_change(browser: Browser, two: Running, run: athwe.Run) -> None:
    open_page(browser, address(two, run, 3, 9, 4))
    before = recommended(browser)
    assert browser.all(".moved") == []
    browser.click(browser.all("[data-act=add]")[0])
    settle(browser)
    after = recommended(browser)
    shown = browser.run(
        "return [...document.querySelector('.top-items').children]"
        ".map((line) => line.querySelector('.moved')?.textContent ?? '')"
    )
    for place, (item, text) in enumerate(zip(after, shown, strict=True)):
        was = before.index(item) if item in before else None
        moved = "" if was == place else "new" if was is None else f"{'▲' if was > place else '▼'} {abs(was - place)}"
        assert text == moved


def test_a_broken_picture_gives_way_to_initials(browser: Browser, two: Running, run: athwe.Run) -> None:
    open_page(browser, address(two, run, 2, 3, 1))
    browser.until("return document.querySelectorAll('.event img').length === 1")
    assert len(browser.all(".event .initials")) == 2
    assert browser.run("return document.querySelector('.event img').naturalWidth") == 112
    browser.console()


def test_on_a_phone_a_button_leads_to_the_recommendations(browser: Browser, two: Running, run: athwe.Run) -> None:
    open_page(browser, address(two, run, *np.arange(2, 12).tolist()), width=PHONE)
    browser.one("#see").click()
    browser.until("return results.getBoundingClientRect().top < innerHeight / 2")
    targets = browser.run(
        "return [...document.querySelectorAll('button, select, input')].filter((each) => each.checkVisibility())"
        ".map((each) => each.getBoundingClientRect()).map((box) => Math.min(box.width, box.height))"
    )
    assert min(size for size in targets if size) >= 13
    assert two.errors == []


def test_an_address_of_another_data_set_is_reported(browser: Browser, two: Running) -> None:
    items = [["no such item", 1_400_000_000]]
    browser.open(f"{two.url}/#{json.dumps({'user': None, 'items': items, 'target': None})}")
    browser.until("return !problem.hidden")
    assert browser.one("#problem").text == "This address holds no history of this data set."
    browser.console()


def test_titles_stay_text(browser: Browser, two: Running) -> None:
    """What the service sends is parsed without running anything, and policy forbids scripts of its own."""
    browser.open(f"{two.url}/")
    settle(browser)
    item = {
        "item_id": "x",
        "title": "<img src=x onerror=alert(1)>",
        "category": "<b>",
        "picture": None,
        "initials": "<",
    }
    browser.run(
        """const real = fetch, told = JSON.stringify({ items: [arguments[0]] });
        window.fetch = async (path, more) => path.startsWith("try/items") ? new Response(told) : real(path, more);""",
        item,
    )
    browser.one("#search").send_keys("x")
    browser.until("return document.querySelectorAll('.found-items button').length === 1")
    assert browser.one(".found-items .title").text == "<img src=x onerror=alert(1)>"
    assert [line for line in browser.console() if "404" not in line] == []  # the broken picture
