"""Results, journals, JUnit XML and the page: what is stored is what was found."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from onnxcam.compare.journal import Journal
from onnxcam.compare.junit import junit, save_junit
from onnxcam.compare.measures import ALIKE
from onnxcam.compare.page import MOST, save_page
from onnxcam.compare.places import Places
from onnxcam.compare.policy import Policy, judge
from onnxcam.compare.results import FAILED, Results, Row, read_results
from onnxcam.errors import OutputError, ResultsError, RuntimeMissingError

from ..conftest import CARD
from .conftest import make_photos
from .models import cnn, shuffled
from .test_sides import compared

JINJA = importlib.util.find_spec("jinja2") is not None


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of one comparison, which no test changes."""
    folder = tmp_path_factory.mktemp("compared")
    for name, model in (("reference", cnn()), ("candidate", shuffled(cnn()))):
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    (folder / "reference.toml").write_text(CARD)
    photos = make_photos(folder / "photos")
    return compared(folder / "reference.onnx", folder / "candidate.onnx", photos)[1]


def same(a: Row, b: Row) -> bool:
    for side in ("reference", "candidate"):
        np.testing.assert_array_equal(getattr(a, side).heat, getattr(b, side).heat)
    return json.dumps(a.to_dict()) == json.dumps(b.to_dict())


def test_results_are_read_back(found: Results, tmp_path: Path) -> None:
    again = read_results(found.save(tmp_path / "compare.json"))
    assert (again.reference, again.candidate) == (found.reference, found.candidate)
    assert all(same(a, b) for a, b in zip(again.rows, found.rows, strict=True))
    assert judge(again, Policy()).checks == judge(found, Policy()).checks


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: t[: len(t) // 2], "damaged, not JSON"),
        (lambda t: "{}", "no results"),
        (lambda t: t.replace('"format": 1', '"format": 99'), "another version"),
        (lambda t: t.replace('"correlation"', '"korrelation"'), "damaged"),
        (lambda t: t.replace('"images"', '"pictures"'), "damaged"),
        (lambda t: re.sub(r'"correlation": [^,]+', '"correlation": NaN', t), "damaged"),
        (lambda t: re.sub(r'"uint8": "[^"]+"', '"uint8": "AAAA"', t), "damaged"),
        (lambda t: re.sub(r'"status": "[^"]+"', '"status": "fine"', t), "damaged"),
    ],
)
def test_damaged_results_are_refused(found: Results, tmp_path: Path, damage, said: str) -> None:
    path = found.save(tmp_path / "compare.json")
    before = path.read_text()
    path.write_text(damage(before))
    assert path.read_text() != before
    with pytest.raises(ResultsError, match=said):
        read_results(path)


def test_results_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="cannot be read"):
        read_results(tmp_path / "none.json")


def test_a_journal_goes_on_where_it_was_cut(found: Results, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "compare.json")
    head = {"sides": [1, 2]}
    assert journal.resume(head) == []
    journal.add(list(found.rows[:3]))
    whole = journal.path.read_text()
    journal.path.write_text(whole + json.dumps(found.rows[3].to_dict())[:100])  # killed here
    rows = Journal(tmp_path / "compare.json").resume(head)
    assert len(rows) == 3 and all(same(a, b) for a, b in zip(rows, found.rows, strict=False))
    assert journal.path.read_text() == whole
    journal.add(list(found.rows[3:5]))
    assert len(journal.resume(head)) == 5
    with pytest.raises(ResultsError, match="other models"):
        journal.resume({"sides": [1, 3]})
    journal.path.write_text(whole.replace('"measures"', '"measure"'))
    with pytest.raises(ResultsError, match="damaged"):
        journal.resume(head)


def test_junit_is_read_by_a_parser(found: Results, tmp_path: Path) -> None:
    rows = [*found.rows, Row("bad\x07<name>.png", "", FAILED, error="no & image")]
    results = Results(found.reference, found.candidate, found.matched, rows)
    policy = Policy({"min_agreement": 0.0}, {"min_correlation": 0.999})
    suite = ElementTree.fromstring(junit(results, policy, judge(results, policy)))
    cases = list(suite)
    assert len(cases) == int(suite.attrib["tests"]) == 2 + len(rows)
    failing = {c.attrib["name"] for c in cases if c.find("failure") is not None}
    right = {r.image for r in found.rows if r.measures["correlation"] < 0.999}
    assert failing == {*right, "every min_correlation", "bad?<name>.png"}
    assert int(suite.attrib["failures"]) == len(failing)
    assert save_junit(tmp_path / "a.xml", results, policy, judge(results, policy)).is_file()


@pytest.mark.skipif(JINJA, reason="Jinja2 is installed")
def test_without_jinja_the_page_is_refused(found: Results, tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match=r"pip install onnxcam\[report\]"):
        save_page(tmp_path / "a.html", found, Policy(), judge(found, Policy()))
    assert not (tmp_path / "a.html").exists()


@pytest.mark.skipif(not JINJA, reason="needs Jinja2 (extra report)")
def test_the_page_is_whole_in_itself(found: Results, tmp_path: Path) -> None:
    rows = [
        replace(found.rows[0], image="gone/since.png"),
        *found.rows[1:],
        Row("<script>alert(1)</script>.png", "", FAILED, error="<b>no image</b>"),
    ]
    results = Results(found.reference, found.candidate, found.matched, rows)
    verdict = judge(results, Policy())
    text = save_page(tmp_path / "a.html", results, Policy(), verdict).read_text("utf-8")
    assert "http" not in text and "<script>alert" not in text and "<b>no image" not in text
    addresses = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert addresses and all(a.startswith("data:image/jpeg;base64,") for a in addresses)
    assert len(addresses) == 3 * len(found.rows) - 1  # photograph, reference, candidate
    assert text.count("<article") == min(len(rows), MOST)
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    order = re.findall(r"<tr><td>([^<]+)", body)
    assert order == [
        r.image.split("/")[-1].replace("<", "&lt;").replace(">", "&gt;")
        for r in results.worst_first()
    ]
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert "same answer, different reason" in text or "different answer" in text


@pytest.mark.skipif(not JINJA, reason="needs Jinja2 (extra report)")
def test_pictures_show_the_two_maps(found: Results, tmp_path: Path) -> None:
    import base64
    import io

    row = next(r for r in found.rows if r.status == ALIKE)
    only = Results(found.reference, found.candidate, found.matched, [row])
    page = save_page(tmp_path / "a.html", only, Policy(), judge(only, Policy())).read_text()
    packed = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(p))).convert("RGB"), float)
        for p in packed
    ]
    assert len(pictures) == 3 and len({p.shape for p in pictures}) == 1
    for picture, side in zip(pictures[1:], ("reference", "candidate"), strict=True):
        heat = getattr(only.rows[0], side).heat
        y, x = (np.argwhere(heat == heat.max())[0] + 0.5) * np.array(picture.shape[:2]) / heat.shape
        change = np.abs(picture - pictures[0]).sum(axis=2)
        assert change[int(y), int(x)] > np.median(change)


def test_places_are_checked_first(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("old")
    with pytest.raises(OutputError, match="--overwrite replaces it"):
        Places(there).check()
    Places(there, overwrite=True).check()
    with pytest.raises(OutputError, match="nothing to resume"):
        Places(there, resume=True).check()
    part = tmp_path / "new.json.part"
    part.write_text("{}\n")
    with pytest.raises(OutputError, match="--resume goes on, --overwrite begins anew"):
        Places(tmp_path / "new.json").check()
    Places(tmp_path / "new.json", resume=True).check()
    with pytest.raises(OutputError, match="is not a file"):
        Places(tmp_path, overwrite=True).check()
    with pytest.raises(OutputError, match="is a file"):
        Places(there / "inside.json").check()
    with pytest.raises(OutputError, match="one file"):
        Places(tmp_path / "a", tmp_path / "a").check()
    assert there.read_text() == "old"
