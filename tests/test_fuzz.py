"""Whatever is handed in, the answer is a result or one of our own errors; thousands of times by TRUST_FUZZ=thorough."""

import copy
import gzip
import os
import warnings

import numpy as np
import pytest
import yaml
from conftest import ABLATIONS, TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trustlib import metrics
from trustlib.apply import evaluate, groups, reader
from trustlib.stats import calibration, resampling, selective, separation, statistics
from trustlib.stats.rates import rate_intervals
from trustlib.study import StudyError, load_study

settings.register_profile(
    "fuzz", max_examples=5000 if os.environ.get("TRUST_FUZZ") == "thorough" else 100, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
fuzzed = settings(settings.get_profile("fuzz"))


def result(call, error):
    """What `call` returns, or None where it raises our own error, which has to say something."""
    try:
        return call()
    except error as raised:
        said = str(raised)
    assert len(said) > 10


# --- Arrays ---

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64) | st.sampled_from([0.0, 1.0, 5e-324, 1e308])
sizes = st.integers(0, 12)


@st.composite
def confidences_and_labels(draw):
    """Mostly as they should be, at times of another shape, type or length, with NaN, or of one kind."""
    size = draw(sizes)
    shape = draw(st.just(size) | hnp.array_shapes(max_dims=3, max_side=4))
    kind = draw(st.sampled_from([np.float64, np.float32, np.int64, np.bool_, np.complex128, "U3", object]))
    values = draw(hnp.arrays(np.float64, shape, elements=numbers))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        confidence = values.astype(kind)
    labels = st.sampled_from([np.bool_, np.int64, np.float64, "U1"])
    elements = draw(st.sampled_from([st.integers(0, 1), st.integers(-1, 2)]))
    correct = draw(hnp.arrays(np.int64, draw(st.just(size) | sizes), elements=elements)).astype(draw(labels))
    return confidence, correct


@fuzzed
@given(confidences_and_labels(), numbers)
def test_metrics(given_arrays, threshold):
    confidence, correct = given_arrays
    found = result(lambda: metrics.evaluate(confidence, correct, threshold=threshold), ValueError)
    undefined = metrics.undefined(np.asarray(correct, bool)) if found else {}
    for name, value in (found or {}).items():
        assert (np.isnan(value) and (name in undefined or np.isnan(threshold))) or 0 <= value <= 1, (name, value)


@fuzzed
@given(confidences_and_labels(), st.integers(-1, 3), numbers, numbers)
def test_statistics(given_arrays, resamples, max_risk, delta):
    confidence, correct = given_arrays
    calls = [
        lambda: resampling.intervals(resampling.bootstrap({"a": confidence}, correct, resamples=resamples)),
        lambda: separation.separability({"a": confidence}, correct, resamples=resamples),
        lambda: statistics.delong(confidence, correct),
        lambda: statistics.delong_difference(confidence, confidence, correct),
        lambda: selective.guaranteed_threshold(confidence, correct, max_risk, delta),
        lambda: rate_intervals(confidence, correct, 0.0),
        lambda: calibration.calibration(confidence, correct),
        lambda: calibration.reliability(confidence, correct),
    ]
    for call in calls:
        result(call, ValueError)


# --- Files ---

names = st.sampled_from(["correct", "label", "prediction", "group", "prob_a", "prob_b", "logit_a", "logit_b", "mine"])
names |= st.sampled_from(["MCP", "", "<b>", "a,b"])
cells = st.sampled_from(
    ["0", "1", "0.5", "-1", "a", "b", "", "nan", "inf", "1e400", "true", "<script>", "é", '"', "0x1"]
)


@st.composite
def tables(draw):
    columns = draw(st.lists(names, min_size=0, max_size=6))
    rows = draw(st.lists(st.lists(cells, min_size=len(columns), max_size=len(columns)), max_size=8))
    return "\n".join(",".join(row) for row in [columns, *rows]).encode(draw(st.sampled_from(["utf-8", "latin-1"])))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of good files, by their ending."""
    folder, rng = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    logits, labels = rng.normal(size=(12, 2)), rng.integers(0, 2, 12)
    np.savez(folder / "a.npz", logits=logits, labels=labels, groups=labels, mine=logits[:, 0])
    text = "correct,mine,group\n" + "\n".join(
        f"{right},{x[0]:.3f},g{right}" for right, x in zip(labels, logits, strict=True)
    )
    rows = "\n".join(f'{{"label": {right}, "logits": {x.tolist()}}}' for right, x in zip(labels, logits, strict=True))
    header = b'{"probs":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},'
    header += b'"labels":{"dtype":"U8","shape":[2],"data_offsets":[8,10]}}'
    tensors = len(header).to_bytes(8, "little") + header + bytes([0x80, 0x3F, 0, 0] * 2) + bytes([0, 1])
    return {
        ".npz": (folder / "a.npz").read_bytes(), ".csv": text.encode(), ".csv.gz": gzip.compress(text.encode()),
        ".jsonl": rows.encode(), ".safetensors": tensors,
    }  # fmt: skip


@st.composite
def damages(draw):
    """A function that changes some bytes, cuts some off, or puts some in."""
    edits = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), st.binary(min_size=1, max_size=4)), max_size=4))

    def damage(content: bytes) -> bytes:
        for where, how, new in edits:
            at = int(where * len(content))
            content = content[:at] + (b"" if how == 0 else new) + content[at + (0 if how == 1 else len(new)) :]
        return content

    return damage


def use(path):
    """All that the page of a file of predictions computes."""
    found = reader.read(path, drop=True)
    scores, _ = evaluate.scores_of(found)
    for name, values in scores.items():
        assert not np.isnan(values).any()
        evaluate.curve(values, found.correct)
        evaluate.probability(found, name, values)
    evaluate.compare_scores(scores, found.correct, {}, resamples=2, log=lambda _: None)
    evaluate.guarantees(scores, found.correct, 0.3, 0.3)
    if found.group is not None:
        groups.groups(values, found.correct, found.group, 0.0)
    if found.label is not None:
        evaluate.confusions(found, np.ones(len(found), bool))


@fuzzed
@given(tables() | st.binary(max_size=60), st.sampled_from([".csv", ".npz", ".jsonl", ".safetensors"]))
def test_a_file_of_predictions(tmp_path, content, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    result(lambda: use(path), reader.PredictionsError)


@fuzzed
@given(damages(), st.sampled_from([".csv", ".npz", ".csv.gz", ".jsonl", ".safetensors"]))
def test_a_damaged_file_of_predictions(tmp_path, whole, damage, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(damage(whole[ending]))
    result(lambda: use(path), reader.PredictionsError)


# --- A study's YAML ---

leaves = st.none() | st.booleans() | st.integers(-2, 10**6) | numbers
leaves |= st.sampled_from(["", "ss", "rsn", "mnist", "../x", "é"])
keys = st.sampled_from(["ce", "rsn", "loss", "x"])
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=5
)


def places(tree, at=()):
    """The paths of all keys and items of nested dicts and lists."""
    for key, below in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*at, key)
        if isinstance(below, dict | list):
            yield from places(below, (*at, key))


PLAN = TINY | {"ablations": ABLATIONS, "domains": {"judged": ["contrast-3"], "images": 100}}
PLACES = list(places(PLAN))


@fuzzed
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(["set", "add", "drop"]), values), max_size=3))
def test_a_study_with_something_else_in_it(tmp_path, changes):
    plan = copy.deepcopy(PLAN)
    for place, how, value in changes:
        around = plan
        try:
            for key in place[:-1]:
                around = around[key]
            if how == "set":
                around[place[-1]] = value
            elif how == "add":
                around["extra"] = value
            else:
                del around[place[-1]]
        except (KeyError, IndexError, TypeError):  # an earlier change took the place away
            continue
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    result(lambda: load_study(str(path)), StudyError)


@fuzzed
@given(st.binary(max_size=80) | st.text(alphabet="abc:-[]{}&*!|>'\"\n #,0.1", max_size=60).map(str.encode))
def test_a_file_that_is_no_study(tmp_path, content):
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    assert result(lambda: load_study(str(path)), StudyError) is None
