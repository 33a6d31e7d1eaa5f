"""Chromium as the tests drive it: windows of any width, light and dark, what the page logs, contrast of every text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--force-color-profile=srgb"]
DESKTOP, PHONE = 1280, 390
CONTRAST = """
const parts = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (rgb) => rgb.slice(0, 3).map((value) => value / 255)
  .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = parts(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  throw new Error("no background");
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || ["SCRIPT", "STYLE", "title", "desc"].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const front = parts(element instanceof SVGElement ? style.fill : style.color);
  const [a, b] = [light(front), light(behind(element))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), element.tagName, element.textContent.trim().slice(0, 40)]);
}
return found;
"""


class Browser:
    """Chromium with pages written to a folder of the test's own."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver, self.folder, self.shown = driver, folder, 0

    def show(self, html: str, *, width: int = DESKTOP, scheme: str = "light") -> None:
        """Open a page from the file system, and wait until it is whole."""
        self.shown += 1
        path = self.folder / f"page {self.shown} with spaces.html"
        path.write_text(html, encoding="utf-8")
        self.open(path.as_uri(), width=width, scheme=scheme)

    def open(self, address: str, *, width: int = DESKTOP, scheme: str = "light") -> None:
        """Open an address, and wait until the page is whole.

        ``get`` alone, each time at the same address, came back with half a page where the machine was busy.
        """
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        if "#" in address:  # otherwise only the fragment would change
            self.driver.get("about:blank")
        self.driver.get(address)
        there = (
            "return document.readyState === 'complete' && location.href.split('#')[0] === arguments[0].split('#')[0]"
        )
        self.until(there, address)

    def until(self, script: str, *arguments: Any) -> Any:
        """Wait until a script returns something true."""
        return WebDriverWait(self.driver, 60, 0.05).until(lambda driver: driver.execute_script(script, *arguments))

    def console(self) -> list[str]:
        """What the page said since the last time, errors and warnings."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, element: WebElement) -> None:
        self.run("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element)
        element.click()

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    @property
    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    @property
    def dialog_is_open(self) -> bool:
        return self.run("return document.getElementById('detail').open")


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with its profile and its pages in a folder."""
    binary, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    assert binary, "chromium must be on the PATH: apt-get install chromium"
    assert driver_path, "chromedriver must be on the PATH: apt-get install chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        yield Browser(driver, folder)
    finally:
        driver.quit()
