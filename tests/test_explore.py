"""Sliders: drawn once without a person, and again each time that a person moves one."""

import ipywidgets as widgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import pytest

from trustlib import data, report


@pytest.fixture
def explored(write_study, monkeypatch):
    """A function that runs the notebook's cells here: (its names, the captions of its figures as they are drawn)."""
    captions = []

    def figure(fig, caption, alt):
        assert alt
        captions.append(caption)
        plt.close(fig)

    def run():
        cells = nbformat.read(data.ROOT / "notebooks" / "explore.ipynb", as_version=4).cells
        own, *others = (cell.source for cell in cells if cell.cell_type == "code")
        given = f"# Parameters\nstudy = {write_study()!r}\ncount = 3\n"
        names = {"In": [own, given]}
        with mpl.rc_context():
            for source in (own, given, *others):
                exec(compile(source, "explore", "exec"), names)
        return names, captions

    monkeypatch.setattr(report, "figure", figure)
    return run


@pytest.mark.slow
def test_without_a_person_every_figure_is_drawn_once(explored, monkeypatch, capsys):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    names, (slopes, threshold, pictures) = explored()
    assert slopes == "α+ = 1, α− = 3: trust from p = 75.0% on."
    assert threshold.endswith("trusted above 0.5, z > 0.")
    assert "class → what RSN said" in pictures
    wrong = ~names["correct"]
    assert f"{(names['z'][wrong] > 0).sum()} of {wrong.sum()} incorrect predictions" in capsys.readouterr().out


@pytest.mark.slow
def test_a_figure_follows_its_sliders(explored, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a person's")
    shown = {}
    wanted = widgets.interactive_output

    def interactive_output(draw, controls):
        shown.update({slider.description: slider for slider in controls.values()})
        return wanted(draw, controls)

    monkeypatch.setattr(widgets, "interactive_output", interactive_output)
    _, captions = explored()
    assert list(shown) == ["α+", "α−", "threshold"]
    assert len(captions) == 3
    shown["α−"].value = 1
    assert captions[3] == "α+ = 1, α− = 1: trust from p = 50.0% on."
    shown["α+"].value = 0.25
    assert captions[4] == "α+ = 0.25, α− = 1: trust from p = 80.0% on."
    shown["threshold"].value = 0.9
    assert captions[5].endswith("trusted above 0.9, z > 2.2.")
