"""What a study has published, results/<study>: its manifest, its ladder of budgets, and whether its YAML is today's."""

import json
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..study import Study
from . import store
from .jobs import JobError

CURVES = ["pair", "loss", "arm", "lr", "seed", "steps", "epochs", "images", "split", "auroc", "tpr", "tnr", "mcp"]


def published_curves(study: Study, name: str) -> pd.DataFrame:
    """Those curves that the study NAME has published which are of this study's networks; empty where there are none."""
    path = store.results() / name / "tables" / "budget.csv"
    frame = pd.read_csv(path) if name and path.exists() else pd.DataFrame(columns=CURVES)
    known = [set(pair.split("-")) <= set(study.all_networks) for pair in frame["pair"]]
    return frame[np.array(known, bool)].reset_index(drop=True)


def published_manifest(study: Study) -> dict:
    """What is recorded of a publication, results/<study>/manifest.json.

    Raises
    ------
    JobError : when nothing is published, or the manifest is damaged.
    """
    path = store.results() / study.name / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise JobError(f"study {study.name} is not published: there is no {path}") from None
    except ValueError as error:
        raise JobError(f"{path} is damaged ({error}): restore the published one") from None
    needed = {"channels", "classes", "images", "runs", "sha256"}
    if not isinstance(manifest, dict) or needed - manifest.keys():
        raise JobError(f"{path} is damaged (expected {', '.join(sorted(needed))} in it): restore the published one")
    return manifest


def check_oracles(study: Study, scores: dict[str, NDArray]) -> None:
    planned = {f"{pair}/{arm}/seed{seed}.z" for pair, arm, seed in product(study.pairs, study.methods, study.seeds)}
    if differing := planned ^ {name for name in scores if name.endswith(".z") and ".heldout." not in name}:
        first = min(differing)
        raise JobError(
            f"study {study.name}: {first} is {'asked for and not published' if first in planned else 'not asked for'}; "
            f"its YAML has changed since, use that of the published commit"
        )
