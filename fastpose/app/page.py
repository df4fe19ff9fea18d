"""What is on the page, and which button does what."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr

from fastpose.app.desk import ALL_JOINTS, EVERYONE, KEEP, Desk, View, data_uri, note
from fastpose.app.heatmaps import has_heatmaps
from fastpose.app.pictures import MAX_FILE_MB, samples, shrink

WAITING = 32
"""Clicks that wait for their turn; one picture is worked on at a time."""

KEPT_SECONDS = 3600
"""After which uploaded and drawn files are deleted."""

THUMBNAIL = 144
THEME = gr.themes.Base(
    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)


def read_asset(name: str) -> str:
    """The text of a file beside this one."""
    return files("fastpose.app").joinpath(name).read_text("utf-8")


class Page:
    """The parts of the page under the names that a `View` has for them; `blocks` holds them."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        keeping = (KEPT_SECONDS, KEPT_SECONDS)
        with gr.Blocks(
            title="fastpose", analytics_enabled=False, delete_cache=keeping, fill_width=True
        ) as self.blocks:
            self._heading()
            self.opened, self.answer = gr.State(None), gr.State(None)
            with gr.Row():
                with gr.Column(min_width=330):
                    self._inputs()
                with gr.Column(min_width=330):
                    self._outputs()
            self._wire()
        self.blocks.queue(max_size=WAITING, default_concurrency_limit=1)

    def _heading(self) -> None:
        meta = self.desk.predictor.meta
        gr.Markdown(
            f"# fastpose\nFind people's joints in a picture with `{meta.model}` ({meta.num_joints} joints, "
            f"{self.desk.predictor.device}). Pictures stay on the machine that runs this page.",
            elem_id="intro",
        )

    def _inputs(self) -> None:
        self.file = gr.File(label="Picture", show_label=False, height=72, elem_id="file")
        gr.Markdown(f"JPEG, PNG, BMP or WebP, at most {MAX_FILE_MB} MB.", elem_id="file-kinds")
        self.samples = gr.HTML(
            html_template=_sample_row(), js_on_load=read_asset("samples.js"), elem_id="samples"
        )
        self.boxes = gr.HTML(
            value=[],
            html_template=read_asset("boxes.html"),
            js_on_load=read_asset("boxes.js"),
            elem_id="boxes",
            picture=None,
        )
        with gr.Row():
            self.run = gr.Button("Find joints", variant="primary", elem_id="run")
            self.detect = gr.Button(_detect_label(self.desk.detector_name), elem_id="detect")

    def _outputs(self) -> None:
        self.status = gr.HTML(note("Choose a picture or one of the samples"), elem_id="status")
        maps = has_heatmaps(self.desk.predictor.model)
        shown: Any = {"interactive": False, "show_label": False, "buttons": ["download", "fullscreen"]}
        with gr.Tabs():
            with gr.Tab("Skeletons"):
                self.skeletons = gr.Image(
                    elem_id="skeletons", alt_text="Skeletons drawn on the picture", **shown
                )
                self.threshold = gr.Slider(
                    0, 1, 0.2, step=0.05, label="Hide joints with a score below", elem_id="threshold"
                )
            with gr.Tab("Heatmaps", visible=maps):
                self.maps = gr.Image(elem_id="maps", alt_text="Heatmaps over the picture", **shown)
                with gr.Row():
                    self.joint = gr.Dropdown(
                        [ALL_JOINTS, *self.desk.joint_names], label="Joint", elem_id="joint"
                    )
                    self.people = gr.Dropdown([EVERYONE], label="Person", elem_id="person")
            with gr.Tab("Joints"):
                self.joints = gr.HTML(elem_id="joints")
        self.save = gr.HTML(elem_id="save")

    def _wire(self) -> None:
        desk, found = self.desk, [self.opened, self.boxes, self.threshold]
        self._on(self.file.upload, desk.open_file, [self.file])
        self._on(self.run.click, desk.find_joints, found)
        self._on(self.detect.click, desk.find_people, [self.opened])
        self._on(self.threshold.change, desk.draw_skeletons, [self.answer, self.threshold], often=True)
        for choice in (self.joint, self.people):
            self._on(choice.input, desk.draw_maps, [self.answer, self.joint, self.people], often=True)

        def pick(event: gr.EventData) -> list[Any]:
            return self._updates(desk.open_sample(event._data.get("index")))

        self._on(self.samples.select, pick, None)

    def _on(self, event: Any, handler: Callable[..., Any], inputs: Any, *, often: bool = False) -> None:
        """Calls the handler, one at a time for all events: predictor and detector bear one thread only.
        Of events that come often, such as a slider's, the last one counts."""
        event(
            handler if inputs is None else lambda *values: self._updates(handler(*values)),
            inputs,
            self._parts(),
            concurrency_id="network",
            concurrency_limit=1,
            show_progress="hidden" if often else "minimal",
            show_progress_on=None if often else [self.status],
            api_visibility="private",
            trigger_mode="always_last" if often else "once",
        )

    def _parts(self) -> list[Any]:
        named = [self.opened, self.answer, self.boxes, self.status, self.skeletons, self.maps, self.joints]
        return [*named, self.save, self.people, self.joint, self.file]

    def _updates(self, view: View) -> list[Any]:
        """What `_parts` become; the file's field is emptied, so that the next file can be dropped on it."""
        boxes = {} if view.boxes is KEEP else {"value": view.boxes}
        boxes |= {} if view.preview is KEEP else {"picture": view.preview}
        people = gr.skip() if view.people is KEEP else gr.Dropdown(view.people, value=EVERYONE)
        joint = gr.skip() if view.people is KEEP else ALL_JOINTS
        plain = [view.status, view.skeletons, view.maps, view.joints, view.save]
        opened, answer = _keep(view.opened), _keep(view.answer)
        changed = gr.HTML(**boxes) if boxes else gr.skip()
        return [opened, answer, changed, *map(_keep, plain), people, joint, None]


def _detect_label(name: str) -> str:
    return "Detect people" if name == "people" else f"Detect people ({name})"


def _keep(value: Any) -> Any:
    return gr.skip() if value is KEEP else value


def _sample_row() -> str:
    """HTML of one button a sample."""
    buttons = []
    for index, sample in enumerate(samples()):
        name = escape(sample.name.rpartition(".")[0].replace("_", " "), quote=True)
        image = data_uri(shrink(sample.load(), THUMBNAIL))
        buttons.append(
            f'<button type="button" data-index="{index}" title="{name}" aria-label="Sample: {name}">'
            f'<img src="{image}" alt=""></button>'
        )
    return (
        f'<div class="samples" role="group" aria-label="Samples"><span>Samples</span>{"".join(buttons)}</div>'
    )
