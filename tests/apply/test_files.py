"""Files as people have them: every separator, encoding and kind of file, and what is refused."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_reader import CLASSES, JUDGED, LABEL, LOGITS, MINE, OUTPUTS, RIGHT, ROW, P, says

from trustlib.apply.reader import PredictionsError, from_frame, read

words = st.sampled_from(["None", "NA", "007", "1.0", "true", "a,b", "a;b", 'say "x"', "é", "two\nlines", "-", "nan"])
FORMS = [(".csv", ","), (".csv", ";"), (".csv", "|"), (".tsv", "\t"), (".txt", "\t"), (".csv.gz", ","), (".jsonl", "")]
FORMS += [(".json", ""), (".jsonl.gz", ""), (".npz", "")]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(words, words, st.floats(0, 1), st.integers(-9, 9)), min_size=3, max_size=20),
    st.sampled_from(FORMS),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_reads_the_same_in_every_form(save, rows, form, encoding, end):
    """Names and numbers come back as they are, whatever separates, quotes, packs or encodes them."""
    table = pd.DataFrame(rows, columns=["label", "prediction", "mine", "code"])
    table.loc[0, "prediction"] = table.loc[0, "label"]
    table.loc[:1, "mine"] = [0.25, 0.75]
    table.loc[1, "label"] = "x"
    ending, separator = form
    if ending == ".npz":
        found = read(save({name: table[name].to_numpy(str if name != "mine" else float) for name in table}, "a.npz"))
    elif separator:
        text = table.to_csv(index=False, sep=separator, lineterminator=end).encode(encoding)
        found = read(save(gzip.compress(text) if ending.endswith("gz") else text, f"a{ending}"))
    else:
        rows = table.to_dict("records")
        text = ("\n".join(map(json.dumps, rows)) if "jsonl" in ending else json.dumps(rows)).encode()
        found = read(save(gzip.compress(text) if ending.endswith("gz") else text, f"a{ending}"))
    np.testing.assert_array_equal(found.confidences["mine"], table["mine"])
    assert "code" not in found.confidences
    if not set(table["label"]) | set(table["prediction"]) <= {"1.0"}:  # else whole numbers
        assert [found.classes[i] for i in found.label] == table["label"].tolist()
        assert [found.classes[i] for i in found.predicted] == table["prediction"].tolist()


def test_a_spreadsheet_of_another_country(save):
    text = "sep=;\r\nBild;correct;Sicherheit (%);;\r\n" + "".join(
        f"Größe {i}.png;{int(i % 4 > 0)};{str(p).replace('.', ',')};;\r\n" for i, p in enumerate(MINE)
    )
    for encoding in ("utf-8-sig", "cp1252"):
        found = read(save((text + ";;;;\r\n").encode(encoding)))
        np.testing.assert_array_equal(found.confidences["Sicherheit (%)"], MINE)
        assert found.rows[0] == "Größe 0.png"
        assert says(found, "semicolon")
        assert says(found, "comma")
        assert says(found, "without any value", "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,correct,masked,mine\n5,1,0,0.5,dark\n6,0,1,0.5", "expected 4 fields in every row, .* found 5 in row 1: "),
        ("id,correct,masked,mine\n5,1,0,0.5\n6,0,0.5", "found 3 in row 2: a field that holds a comma needs quotes"),
        ("correct,mine\n" + "1,0.5\n" * 2000 + "1,0,5", "found 3 in row 2,001"),
        ("correct  mine\n1  0.5\n", "columns separated by a comma, semicolon, .* found spaces: correct  mine"),
        ("1,0.5\n0,0.2\n", "expected the names of the columns in the first line, found 1, 0.5"),
        ("label,prob_0,prob_0,prob_1\n0,0.5,0.2,0.3\n", "one column of each name, found two of prob_0"),
    ],
)
def test_a_table_that_is_shifted_or_has_no_names(text, message, save):
    with pytest.raises(PredictionsError, match=message):
        read(save(text))


def test_lists_and_objects_in_json(save):
    rows = [
        {"label": of, "probs": dict(zip(CLASSES, p, strict=True))}
        for of, p in zip(OUTPUTS["label"], P.tolist(), strict=True)
    ]
    found = read(save("\n".join(map(json.dumps, rows)), "a.jsonl"))
    np.testing.assert_array_equal(found.label, LABEL)
    rows = [{"label": int(of), "logits": z} for of, z in zip(LABEL, LOGITS.tolist(), strict=True)]
    np.testing.assert_allclose(read(save(json.dumps(rows), "a.json")).logits, LOGITS)
    rows[1]["logits"] = [1.0]
    with pytest.raises(PredictionsError, match="column logits: expected lists of one length, found the lengths 1, 3"):
        read(save(json.dumps(rows), "a.json"))


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    table = JUDGED.set_index(pd.Index([f"{i}.png" for i in ROW], name="image"))
    table.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").rows[1] == "1.png"


def test_bfloat16(save):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    rng = np.random.default_rng(0)
    p = torch.softmax(torch.tensor(rng.normal(size=(200, 10)) * 3).bfloat16(), 1)
    arrays = {"probabilities": p, "labels": p.float().argmax(1)}
    path = save(b"", "a.safetensors")
    save_file(arrays, path, {"classes": json.dumps([f"c{k}" for k in range(10)])})
    bits = p.view(torch.int16).numpy().view("V2")
    text = pd.DataFrame(p.float().numpy()).add_prefix("prob_").assign(label=p.float().argmax(1).numpy())
    sources = [read(path), from_frame(arrays), read(save(text))]
    sources += [read(save({"probabilities": bits, "labels": arrays["labels"].numpy()}, "a.npz"))]
    for found in sources:
        np.testing.assert_allclose(np.exp(found.logits), p.double() / p.double().sum(1, keepdim=True), rtol=1e-6)
        assert found.correct.all()
    assert sources[0].classes[9] == "c9"


def test_a_frame_of_whatever_holds_numbers(save):
    torch = pytest.importorskip("torch")
    arrays = {"correct": torch.tensor(RIGHT), "mine": torch.tensor(MINE, requires_grad=True), "group": list("ab") * 30}
    found = from_frame(arrays | {"cluster": pd.Series(ROW // 4)}, source="here")
    assert (found.source, found.group[1], found.cluster[59]) == ("here", "b", "14")
    np.testing.assert_array_equal(found.confidences["mine"], MINE)
    frame = JUDGED.assign(mine=pd.array(MINE, "Float64"), patient=ROW // 4).set_index(ROW[::-1])
    found = from_frame(frame, cluster="patient")
    np.testing.assert_array_equal(found.confidences["mine"], MINE)
    assert found.cluster[5] == "1"
    assert says(from_frame(frame), "patient has 15 values", "cluster")


# --- What is refused ---


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"label,correct\n1,1\n", "this is no npz file, or a damaged one"),
        ("a.npz", b"", "this is no npz file, or a damaged one"),
        ("a.safetensors", b"\7\0\0\0\0\0\0\0[1,2,3]", "this is no safetensors file, or a damaged one"),
        ("a.jsonl", b'{"correct": 1}\n[2]', "this is no jsonl file, or a damaged one .*one value per column"),
        ("a.csv.gz", b"correct,mine\n1,1\n", "this is no csv file, or a damaged one"),
        ("a.csv", b"\x00\xff\xfePK\x03\x04" * 9, "this is no csv file, or a damaged one"),
        ("a.csv", b"", "this is no csv file, or a damaged one"),
        ("a.xlsx", b"1", r"ends in \.csv, .* or \.csv\.gz, found \.xlsx"),
        ("a.npz.gz", b"1", r"found \.gz"),
        ("a", b"1", "found no ending"),
    ],
)
def test_a_file_that_is_not_what_its_ending_says(name, content, message, save):
    with pytest.raises(PredictionsError, match=message):
        read(save(content, name))
    with pytest.raises(PredictionsError, match=r"none\.csv: there is no such file"):
        read("none.csv")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"logits": np.zeros(4), "labels": np.zeros(4, int)}, r"logits: expected the shape \(N, K\), found \(4,\)"),
        ({"logits": np.zeros((4, 2)), "labels": np.zeros(3, int)}, "arrays differ in length: .* labels 3"),
        ({"logits": np.zeros((4, 2)), "classes": np.array(["a"])}, "1 classes are named, logits has 2 columns"),
        ({"logits": np.zeros((4, 3)), "labels": np.zeros(4, int), "classes": list("aba")}, "each name, found two of a"),
        ({"correct": np.zeros(4), "mine": np.array([object()] * 4)}, "array mine holds Python objects"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_together(arrays, message, save):
    with pytest.raises(PredictionsError, match=message):
        read(save(arrays, "a.npz"))
