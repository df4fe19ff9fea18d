"""The page in a browser, from end to end: mouse and keyboard, good files and bad, nothing from outside."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import cv2
import numpy as np
import pytest
from app_stubs import spots_predictor, spotted

from fastpose.app.pictures import MAX_FILE_MB, samples
from fastpose.app.serve import served

pytest.importorskip("gradio", reason="the extra app is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)

IMAGE = spotted(800, 600, (300, 200), (500, 350), 12)
DONE = "#status p:has-text(' ms on cpu')"
FAILED = "#status p.error"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page that is served where every environment variable would have it shared; no socket of this process
    may lead elsewhere."""
    loud = {"GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_ANALYTICS_ENABLED": "True"}
    loud |= {
        "HTTP_PROXY": "http://192.0.2.1:9",
        "http_proxy": "http://192.0.2.1:9",
        "GRADIO_ALLOWED_PATHS": "/",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in loud.items():
            patch.setenv(name, value)
        called: list[Any] = []
        connect = socket.socket.connect
        patch.setattr(socket.socket, "connect", lambda self, to: called.append(to) or connect(self, to))
        with served(spots_predictor()) as found:
            yield found
        outside = [to for to in called if isinstance(to, tuple) and to[0] not in ("127.0.0.1", "::1")]
        assert called
        assert not outside
        assert {name: os.environ[name] for name in loud} == loud, "the environment is left as it was"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A fresh page, which must ask nothing of anybody but its server and must not fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    asked: list[str] = []
    failures: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.on("dialog", lambda dialog: failures.append(f"dialog {dialog.message}") or dialog.dismiss())
    opened.goto(address)
    opened.wait_for_selector("#samples button")
    yield opened
    hosts = {urlparse(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    assert not failures
    context.close()


def write(folder: Path, name: str = "mine.png", image: np.ndarray = IMAGE) -> str:
    path = folder / name
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return str(path)


def upload(page: Any, path: str) -> None:
    page.set_input_files("#file input[type=file]", path)


def saved_json(page: Any) -> dict[str, Any]:
    with page.expect_download() as download:
        page.click("#save a")
    return json.loads(Path(download.value.path()).read_text())


def test_a_sample_gives_skeletons_heatmaps_joints_and_json(page: Any) -> None:
    page.click("#samples button >> nth=1")
    page.wait_for_selector(DONE)
    assert "2 people in" in page.inner_text("#status")
    assert page.locator("#boxes li").count() == page.locator("#boxes g").count() == 2
    page.wait_for_function("document.querySelector('#skeletons img')?.naturalWidth === 384")
    page.click("role=tab[name=Heatmaps]")
    page.wait_for_function("document.querySelector('#maps img')?.naturalWidth === 384")
    first = page.get_attribute("#maps img", "src")
    page.click("#joint input")
    page.click("role=option[name='right spot']")
    page.wait_for_function("old => document.querySelector('#maps img').src !== old", arg=first)
    page.click("role=tab[name=Joints]")
    assert page.locator("#joints tbody tr").count() == 4
    sample = samples()[1]
    (expected,) = spots_predictor()(sample.load(), sample.boxes)
    found = saved_json(page)
    assert (found["name"], found["people"]) == ("figure_2.png", json.loads(expected.to_json())["people"])


def test_boxes_drawn_with_the_mouse_are_those_that_are_used(page: Any, tmp_path: Path) -> None:
    upload(page, write(tmp_path))
    page.wait_for_selector("#boxes img[src]")
    page.wait_for_function("document.querySelector('#boxes svg').clientWidth > 100")
    area = page.locator("#boxes svg").bounding_box()
    scale = area["width"] / 800

    def drag(start: tuple[float, float], end: tuple[float, float]) -> None:
        page.mouse.move(area["x"] + start[0] * scale, area["y"] + start[1] * scale)
        page.mouse.down()
        page.mouse.move(area["x"] + end[0] * scale, area["y"] + end[1] * scale, steps=4)
        page.mouse.up()

    def fields() -> np.ndarray:
        return np.array([float(box.input_value()) for box in page.locator("#boxes li input").all()])

    drag((600, 500), (200, 100))
    np.testing.assert_allclose(fields(), [200, 100, 400, 400], atol=2)
    drag((400, 300), (450, 280))
    np.testing.assert_allclose(fields(), [250, 80, 400, 400], atol=3)
    drag((650, 480), (600, 500))
    np.testing.assert_allclose(fields(), [250, 80, 350, 420], atol=4)
    drag((20, 20), (20.4, 20.2))
    assert page.locator("#boxes li").count() == 1, "a click draws nothing"
    kept = fields().tolist()
    page.click("#run")
    page.wait_for_selector(DONE)
    (person,) = saved_json(page)["people"]
    np.testing.assert_allclose(person["box"], kept, atol=0.1)
    assert np.abs([person["keypoints"]["left_spot"][key] for key in "xy"] - np.array([300, 200])).max() < 40


def test_everything_can_be_done_with_the_keyboard(page: Any) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        pytest.fail(f"{selector} is not reached with Tab")

    tab_to("#samples button")
    page.keyboard.press("Enter")
    page.wait_for_selector(DONE)
    page.focus("#samples button >> nth=3")
    tab_to("#boxes g")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Delete")
    assert page.locator("#boxes g").count() == 0
    tab_to("#boxes .add")
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.dataset.index") == "0", "the new box is at hand"
    before = [float(field.input_value()) for field in page.locator("#boxes li input").all()]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    moved = [float(field.input_value()) for field in page.locator("#boxes li input").all()]
    assert np.subtract(moved, before).tolist() == [-4, 0, 0, -4]
    tab_to("#boxes li input")
    page.keyboard.press("Control+A")
    page.keyboard.type("-30")
    tab_to("#boxes li input")
    assert page.locator("#boxes li input").first.input_value() == "0", "kept inside the picture"
    tab_to("#run")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#status').innerText.startsWith('1 person in')")
    tab_to("#save a")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    (person,) = json.loads(Path(download.value.path()).read_text())["people"]
    assert person["box"] == [0, *moved[1:]]


def test_bad_files_are_told_of_and_the_page_goes_on(page: Any, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no picture at all")
    upload(page, str(text))
    page.wait_for_selector(f"{FAILED}:has-text('notes.txt: not a picture; choose a JPEG')")
    cut = Path(write(tmp_path, "cut.png"))
    cut.write_bytes(cut.read_bytes()[:-30])
    upload(page, str(cut))
    page.wait_for_selector(f"{FAILED}:has-text('cut.png: the file is cut short')")
    page.click("#run")
    page.wait_for_selector(f"{FAILED}:has-text('there is no picture yet')")
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate((MAX_FILE_MB << 20) + 1000)
    upload(page, str(large))
    page.wait_for_selector("text=/maximum allowed size/i")
    upload(page, write(tmp_path, "black.png", np.zeros((200, 300, 3), np.uint8)))
    page.wait_for_selector("#status p:has-text('black.png, 300x200')")
    page.click("#detect")
    page.wait_for_selector(f"{FAILED}:has-text('finds nobody in black.png; draw boxes by hand')")
    page.click("#run")
    page.wait_for_selector(DONE)
    assert saved_json(page)["found_by"] == "whole"


def test_a_name_is_only_text(page: Any, tmp_path: Path) -> None:
    upload(page, write(tmp_path, "<img src=x onerror=alert(1)>.png"))
    page.wait_for_selector("#status p:has-text('800x600')")
    page.click("#run")
    page.wait_for_selector(DONE)
    assert page.locator("#status img, #save img, #joints img").count() == 0


def test_on_a_phone_nothing_sticks_out(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.click("#samples button >> nth=1")
    page.wait_for_selector(DONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for selector in ("#boxes svg", "#run", "#skeletons", "#save a"):
        box = page.locator(selector).first.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 400, selector


def get(
    address: str, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int, Any, str]:
    """Status, headers and body of an answer; the path is sent as it is."""
    place = urlparse(address)
    line = http.client.HTTPConnection("127.0.0.1", place.port, timeout=20)
    line.request(method, path, body, headers)
    answer = line.getresponse()
    return answer.status, answer.headers, answer.read().decode(errors="replace")


def test_answers_forbid_the_browser_to_load_from_elsewhere(address: str) -> None:
    for path in ("/", "/config", "/nothing-here"):
        policy = get(address, path)[1]["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy
        assert "*" not in policy


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "192.168.0.7:7860"])
def test_another_name_for_this_machine_gets_no_answer(address: str, host: str) -> None:
    assert get(address, "/", Host=host)[0] == 400
    assert get(address, "/", Host="localhost")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=/proc/self/environ",
        "/gradio_api/file=%00/etc/passwd",
        "/gradio_api/file=" + "x" * 4096,
        "/gradio_api/file=//host/share",
        "/gradio_api/file=http://192.0.2.1/",
        "/gradio_api/file=HTTPS://192.0.2.1/",
        "/gradio_api/proxy=http://192.0.2.1/",
        "/static/../../../../../../etc/passwd",
        "/assets/..%2f..%2f..%2f..%2fetc/passwd",
    ],
)
def test_no_file_and_no_address_but_the_pages_own(address: str, path: str) -> None:
    status, _, text = get(address, path)
    assert 400 <= status < 500, (status, text[:200])
    assert "root:" not in text


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", "http://192.0.2.1/a.png"], ids=ascii)
def test_a_picture_that_was_never_uploaded_is_refused(address: str, path: str) -> None:
    config = json.loads(get(address, "/config")[2])
    file = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "file")
    event = next(row["id"] for row in config["dependencies"] if [file, "upload"] in row["targets"])
    data = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [data], "fn_index": event, "session_hash": f"s{hash(path)}"})
    get(address, "/gradio_api/queue/join?", "POST", body, **{"Content-Type": "application/json"})
    text = get(address, f"/gradio_api/queue/data?session_hash=s{hash(path)}")[2]
    assert '"success":false' in text.replace(" ", "")
    assert "root:" not in text
