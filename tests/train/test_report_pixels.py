"""What the report says of a segmentation: its classes, and pictures inside the page."""

from PIL import Image

from tenfold.train.report import render_report, write_report

REPORT = {
    "model": "segmenter on mobilenet_v2",
    "main_metric": "miou",
    "task": {"task": "segment", "labels": ["sky", "<road>"], "colours": [[1, 2, 3], [255, 0, 0]]},
    "metrics": {"final": {"miou": 0.5, "iou_sky": 0.75, "iou_<road>": None}},
}


def with_pictures(tmp_path, *files):
    (tmp_path / "pictures").mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "1.png")
    rows = [{"file": file, "caption": "a<b>.jpg"} for file in files]
    return {**REPORT, "pictures": rows}


def test_each_class_has_its_colour_and_its_share():
    page = render_report(REPORT)
    for words in ("mIoU", "background:#010203", "75.0 %", "&lt;road&gt;", "does not occur"):
        assert words in page


def test_pictures_stand_in_the_page_with_a_legend(tmp_path):
    page = write_report(with_pictures(tmp_path, "pictures/1.png"), tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "a&lt;b&gt;.jpg" in page
    assert "img-src data:" in page
    assert 'src="http' not in page


def test_only_pictures_of_the_run_are_opened(tmp_path):
    secret = tmp_path.parent / "secret.png"
    Image.new("RGB", (4, 4)).save(secret)
    files = ("../secret.png", str(secret), "pictures/../../secret.png", "pictures/2.png", "config.json")
    page = write_report(with_pictures(tmp_path, *files), tmp_path / "report.html").read_text()
    assert "data:image" not in page


def test_colours_that_are_none_do_no_harm():
    task = {**REPORT["task"], "colours": [['red;"><script>'], [1, 2]]}
    page = render_report({**REPORT, "task": task})
    assert "<script" not in page
    assert "background:#000000" in page


def test_other_tasks_have_no_such_sections():
    page = render_report({"model": "x", "task": {"task": "classify", "labels": ["a"]}, "metrics": {"final": {}}})
    assert "Classes" not in page
    assert "Answers" not in page
