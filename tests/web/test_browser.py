"""The page in a real browser: Chromium, headless, driven by selenium."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tenfold.data.video import VideoReader
from video_files import write_with_sound
from web.conftest import start_server

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,  # starts a browser and a server, and erases
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and chromedriver (Debian: chromium-driver)"),
]
SHOTS = os.environ.get("TENFOLD_SCREENSHOTS")
"""Folder for pictures of the page, to be looked at."""
WAIT = 90


def clip_with_square(path, count=14, height=120, width=160):
    """A noisy scene, in which a yellow square moves to the right; with sound."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 50, (height // 4, width // 4, 3)).repeat(4, 0).repeat(4, 1)
    still = np.stack([rows * 120 // height, columns * 150 // width, np.full_like(rows, 90)], 2) + noise
    frames = np.repeat(still[None].astype(np.uint8), count, 0)
    for index, frame in enumerate(frames):
        frame[40:72, 10 + 7 * index : 42 + 7 * index] = [250, 230, 20]
    write_with_sound(path, frames)
    return frames, still


class Page:
    """What a person does with the page."""

    def __init__(self, driver, server):
        self.driver, self.server = driver, server

    def open(self, address):
        self.driver.get(address)
        self.until(lambda: self.one("#sample").is_displayed() or self.one("#work").is_displayed())

    def one(self, selector):
        from selenium.webdriver.common.by import By

        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def many(self, selector):
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, holds, seconds=WAIT):
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

        end = time.monotonic() + seconds
        while True:
            try:
                if holds():
                    return
            except (NoSuchElementException, StaleElementReferenceException):
                pass
            if time.monotonic() > end:
                state = self.one("main").text
                raise AssertionError(f"the page did not get there; it says: {state!r} {self.one('#notice').text!r}")
            time.sleep(0.1)

    def click_at(self, x, y):
        """Click in the picture, in parts of its width and height."""
        from selenium.webdriver import ActionChains

        canvas = self.one("#canvas")
        size = canvas.size
        away = round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"])
        ActionChains(self.driver).move_to_element_with_offset(canvas, *away).click().perform()

    def pixel(self, x, y):
        """The colour in the picture there."""
        script = """const c = document.getElementById('canvas'), at = arguments;
            return [...c.getContext('2d').getImageData(at[0] * c.width, at[1] * c.height, 1, 1).data].slice(0, 3)"""
        return np.array(self.driver.execute_script(script, x, y))

    def shoot(self, name):
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(f"{SHOTS}/{name}.png")

    def scrub(self, frame):
        script = """const s = document.getElementById('scrub'); s.value = arguments[0];
            s.dispatchEvent(new Event('input', {bubbles: true}))"""
        self.driver.execute_script(script, frame)


@pytest.fixture
def page(tmp_path, monkeypatch):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    words = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1360,900")
    for word in words:
        options.add_argument(word)
    options.add_argument("--disable-background-networking")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    downloads = {"download.default_directory": str(tmp_path / "downloads"), "download.prompt_for_download": False}
    options.add_experimental_option("prefs", downloads)
    server = start_server(tmp_path / "serve")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Page(driver, server)
        bad = [one["message"] for one in driver.get_log("browser") if one["level"] == "SEVERE"]
        assert not [one for one in bad if "404" not in one], bad  # masks that are not there yet are asked for
    finally:
        driver.quit()
        server.stop()


def test_upload_click_erase_compare_download_with_a_reload_and_a_second_tab(page, tmp_path):
    frames, still = clip_with_square(tmp_path / "holiday.mp4")
    page.open(page.server.address)
    page.shoot("start")
    assert "token" not in page.driver.current_url
    page.one("#file").send_keys(str(tmp_path / "holiday.mp4"))
    page.until(lambda: page.one("#clip-facts").text.startswith("160 x 120, 14 frames"))
    assert "with sound" in page.one("#clip-facts").text

    page.scrub(6)
    page.until(lambda: abs(page.pixel(0.42, 0.47) - [250, 230, 20]).max() < 40)
    page.click_at(0.42, 0.47)
    page.until(lambda: "Seen in" in page.one("#mark-hint").text)
    page.until(lambda: page.pixel(0.42, 0.47)[2] > 60)  # the mask's colour lies over the yellow
    page.shoot("followed")

    page.one("#erase").click()
    page.until(lambda: page.one("#erase-state progress"))
    page.driver.refresh()
    page.until(lambda: page.one("#clip-title").text == "holiday.mp4")
    page.until(lambda: page.one("#step-done").is_displayed())
    page.shoot("erased")

    page.scrub(6)
    script = """const s = document.getElementById('compare'); s.value = arguments[0];
        s.dispatchEvent(new Event('input', {bubbles: true}))"""
    page.driver.execute_script(script, 0)  # all of it after
    page.until(lambda: abs(page.pixel(0.42, 0.47) - still[56, 67]).max() < 40)
    page.driver.execute_script(script, 1000)  # all of it before
    page.until(lambda: abs(page.pixel(0.42, 0.47) - [250, 230, 20]).max() < 40)

    page.one("#download").click()
    files = tmp_path / "downloads"
    page.until(lambda: files.is_dir() and [path for path in files.iterdir() if path.suffix == ".mp4"])
    (result,) = files.iterdir()
    assert result.name == "holiday (clean).mp4"
    with VideoReader(result) as video:
        assert video.info.has_sound
        made = [frame.image for frame in video]
    assert len(made) == 14
    hidden = np.abs(made[6].astype(int) - still)[40:72, 52:84].mean()
    assert hidden < 0.15 * np.abs(frames[6].astype(int) - still)[40:72, 52:84].mean()

    address = page.driver.current_url
    page.driver.switch_to.new_window("tab")
    page.driver.get(address)
    page.until(lambda: page.one("#step-done").is_displayed())
    page.one("#unmark").click()  # in one tab ...
    page.until(lambda: not page.one("#step-done").is_displayed())
    page.driver.switch_to.window(page.driver.window_handles[0])
    page.until(lambda: not page.one("#step-done").is_displayed())  # ... and seen in the other


def test_cancel_and_go_on_and_a_clip_that_is_none(page, tmp_path):
    clip_with_square(tmp_path / "holiday.mp4", count=60, width=480)
    (tmp_path / "none.mp4").write_bytes(b"<script>alert(1)</script>" * 100)
    page.open(page.server.address)
    page.one("#file").send_keys(str(tmp_path / "none.mp4"))
    page.until(lambda: "is not a video that can be read" in page.one("#clip-facts").text)
    page.one(".back").click()
    page.one("#file").send_keys(str(tmp_path / "holiday.mp4"))
    page.until(lambda: "60 frames" in page.one("#clip-facts").text)
    page.one("#moving").click()
    page.until(lambda: "Seen in" in page.one("#mark-hint").text)
    page.one("#erase").click()
    page.until(lambda: page.one("#erase-state progress"))
    page.one("#erase-state button").click()
    page.until(lambda: "Cancelled" in page.one("#erase-state").text)
    assert page.one("#erase-state button").text == "Go on"
    page.one("#erase-state button").click()
    page.until(lambda: page.one("#step-done").is_displayed())


def test_everything_is_done_by_keyboard_and_has_a_name(page, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    clip_with_square(tmp_path / "holiday.mp4")
    page.open(page.server.address)
    page.one("#file").send_keys(str(tmp_path / "holiday.mp4"))
    page.until(lambda: "14 frames" in page.one("#clip-facts").text)
    for element in page.many("button, input, select, canvas, a, iframe"):
        if element.is_displayed():
            assert element.accessible_name, element.get_attribute("outerHTML")
    page.driver.execute_script("document.getElementById('canvas').focus()")
    ActionChains(page.driver).send_keys(Keys.ARROW_RIGHT * 8).perform()
    page.until(lambda: page.one("#clock").text.endswith("· 8"))
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_UP).key_up(Keys.SHIFT).perform()
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.until(lambda: "Seen in" in page.one("#mark-hint").text)


def test_the_pages_fit_a_phone_and_the_dark(page, tmp_path):
    clip_with_square(tmp_path / "holiday.mp4")
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.open(page.server.address)
    page.shoot("phone-start")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    page.one("#file").send_keys(str(tmp_path / "holiday.mp4"))
    page.until(lambda: "14 frames" in page.one("#clip-facts").text)
    fits = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert page.driver.execute_script(fits)
    page.shoot("phone-clip-dark")
    for name in ("reports", "costs", "erase"):
        page.one(f"nav a[data-page={name}]").click()
        page.until(lambda name=name: page.one(f"#page-{name}").is_displayed())
        assert page.driver.execute_script(fits), name
        page.shoot(f"phone-{name}-dark")
    page.driver.get(page.server.origin + "/#costs")
    page.one("#model").clear()
    page.one("#model").send_keys("convnet_tiny")
    page.one("#budget").send_keys("macs=1k")
    page.one("#profile button").click()
    page.until(lambda: page.one("#profile-result").is_displayed())
    assert "over 1 k" in page.one("#profile-cards").text
    assert page.driver.execute_script(fits)
    page.shoot("phone-profile-dark")
