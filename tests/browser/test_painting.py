"""The link graph's two painters: WebGL where the browser has it, a 2D canvas elsewhere and once the context is lost."""

from __future__ import annotations

import pytest

from .conftest import Viewer

_LOSE = """() => {
  const context = document.querySelector('canvas[data-painter]').getContext('webgl2');
  context?.getExtension('WEBGL_lose_context')?.loseContext();
}"""
_INK = """() => {
  const canvas = document.querySelector('.plot canvas');
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let dark = 0;
  for (let i = 0; i < pixels.length; i += 4) dark += pixels[i + 3] > 200 && pixels[i + 1] < 140 ? 1 : 0;
  return dark;
}"""


def lose_webgl(viewer: Viewer) -> None:
    """Takes the WebGL context away, if there is one, and waits for the 2D canvas to take over."""
    viewer.page.evaluate(_LOSE)
    viewer.page.wait_for_selector('canvas[data-painter="canvas"]', state="attached")
    viewer.page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


@pytest.mark.core
def test_a_lost_context_leaves_the_whole_drawing_on_a_canvas(viewer: Viewer) -> None:
    viewer.open()
    lose_webgl(viewer)
    viewer.page.wait_for_function(f"() => ({_INK})() > 300")


def test_the_drawing_can_be_moved_and_zoomed_with_either_painter(viewer: Viewer) -> None:
    viewer.open()
    for _ in range(2):
        plot = viewer.page.locator(".plot").first
        box = plot.bounding_box()
        assert box is not None
        before = viewer.page.locator(".row-label").first.evaluate("(label) => label.style.top")
        viewer.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        viewer.page.mouse.wheel(0, -300)
        viewer.page.wait_for_function(
            "(top) => document.querySelector('.row-label')?.style.top !== top", arg=before
        )
        viewer.page.mouse.dblclick(box["x"] + 4, box["y"] + 4)
        viewer.page.wait_for_function(
            "(top) => document.querySelector('.row-label')?.style.top === top", arg=before
        )
        lose_webgl(viewer)
