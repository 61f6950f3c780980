"""The report: what it says of runs, with labels and without, and that it is a page that works."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pppc
import pytest
from pppc.data.catalog import label_reader, list_records
from pppc.engine.alarms import ALARMS
from pppc.errors import InputError
from pppc.report import embeddings, try_report, write_report
from pppc.report import page as report_page
from tiny_run import run_folder, tiny_config

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """A page's text, its attributes, and its elements by name."""

    def __init__(self, path: Path):
        super().__init__()
        self.text, self.elements = "", []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def made_up_run(folder: Path, *lines: dict, log: str = "", opts=(), method="pppc") -> Path:
    """A run's folder without a checkpoint."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(tiny_config(folder, *opts, method=method).dump())
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "log.txt").write_text(log)
    return folder


def evaluated(iteration: int, mean: float, **more: float) -> dict:
    return {
        "iteration": iteration,
        "sem_seg/mIoU": mean,
        "sem_seg/IoU-<b>&": mean,
        "time": 0.5,
        **more,
    }


def told(page: Path) -> dict:
    return json.loads(page.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def two_runs(demo_datasets, tmp_path_factory) -> Path:
    """The report of an adapted run and its source-only one, random networks, on labeled images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(demo_datasets))
        folder = tmp_path_factory.mktemp("two")
        source_only = run_folder(folder / "source_only", method="source_only")
        run = run_folder(folder / "adapted")
        (source_only / "config.yaml").write_text(
            tiny_config(source_only, method="source_only").dump()
        )
        opts = ["MODEL.WEIGHTS", str(source_only / "model_final.pth")]
        (run / "config.yaml").write_text(tiny_config(run, *opts).dump())
        return write_report([run], images=3)


def test_a_page_of_two_models_counts_what_they_predict(two_runs, datasets_root):
    """Against a count by hand; the source-only run is the one that the other began with."""
    found = told(two_runs)
    run = two_runs.parent
    models = {name: pppc.load(run.parent / name) for name in ("source_only", "adapted")}
    confusion = {name: np.zeros((19, 19), int) for name in models}
    reader = label_reader(models["adapted"].cfg, "cityscapes_val")
    for record in list_records("cityscapes_val"):
        truth = reader.read(record["sem_seg_file_name"])
        labels = {name: model.predict(record["file_name"]).labels for name, model in models.items()}
        for name, label in labels.items():
            np.add.at(confusion[name], (truth[truth < 19], label[truth < 19]), 1)
        image = found["images"][Path(record["file_name"]).name]
        different = np.mean(labels["source_only"] != labels["adapted"])
        assert image["difference"] == pytest.approx(different)
    for name, matrix in confusion.items():
        assert found["confusion"][name] == matrix.tolist()
        with np.errstate(invalid="ignore"):
            iou = 100 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1) - matrix.diagonal())
        assert found["runs"][name]["iou"]["mean"] == pytest.approx(iou[matrix.sum(1) > 0].mean())
    assert found["iou_of_the_images_here_alone"]
    means = [found["runs"][name]["iou"]["mean"] for name in ("adapted", "source_only")]
    assert f"mIoU {means[0]:.1f} %, source-only {means[1]:.1f} %" in found["verdict"]["headline"]
    rows = list(csv.reader(two_runs.with_suffix(".csv").open()))
    values = {tuple(filter(None, row[:-1])): row[-1] for row in rows}
    assert float(values["runs", "adapted", "iou", "mean"]) == means[0]


def test_a_page_needs_nothing_from_elsewhere_and_says_what_its_pictures_show(two_runs):
    assert two_runs.stat().st_size < 10e6
    page = Page(two_runs)
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert re.match("#|data:", attributes.get(name) or "#"), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", two_runs.read_text())
    images = [image for image in page.all("img") if "src" in image]
    assert len(images) == 3 * 6 and all(image["alt"] and image["width"] for image in images)
    drawings = [svg["aria-label"] for svg in page.all("svg")]
    assert len(drawings) == 5 and any("PCA" in title for title in drawings)
    for id in {link["href"][1:] for link in page.all("a")}:
        assert any(attributes.get("id") == id for _, attributes in page.elements), id


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")
def test_a_browser_opens_the_page_sorts_its_tables_and_enlarges_its_pictures(two_runs, tmp_path):
    probe = """<script>
    let moved = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((one) => { moved += one.value; }))
      .observe({type: "layout-shift", buffered: true});
    addEventListener("load", () => setTimeout(() => {
      const table = document.querySelector("#classes table"), heading = table.tHead.rows[0].cells[1];
      const column = () => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent);
      heading.firstChild.click();
      const falling = column();
      heading.firstChild.click();
      document.querySelector(".enlarge").click();
      const dialog = document.querySelector("dialog"), large = dialog.querySelector("img");
      document.body.dataset.found = JSON.stringify({
        falling, rising: column(), sort: heading.ariaSort, open: dialog.open, alt: large.alt, moved,
        wide: document.documentElement.scrollWidth - innerWidth,
      });
    }, 300));
    </script>"""
    page = tmp_path / "page.html"
    page.write_text(two_runs.read_text().replace("</head>", f"{probe}</head>"))
    for width in (390, 1280):
        browser = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path / str(width)}", f"--window-size={width},900",
             "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "CONSOLE" not in browser.stderr, browser.stderr
        (found,) = [body for body in PageText(browser.stdout).all("body")]
        found = json.loads(found["data-found"])
        numbers = [float(text) for text in found["falling"] if text != "\u2013"]
        assert len(numbers) > 5 and numbers == sorted(numbers, reverse=True)
        assert found["rising"] == found["falling"][::-1] or sorted(numbers) == [
            float(text) for text in found["rising"] if text != "\u2013"
        ]
        assert found["sort"] == "ascending" and found["open"] and found["alt"].endswith(": image")
        assert found["moved"] == 0 and found["wide"] <= 0


class PageText(Page):
    def __init__(self, text: str):
        HTMLParser.__init__(self)
        self.text, self.elements = "", []
        self.feed(text)


def test_names_of_classes_are_text_and_alarms_stand_in_the_first_line(tmp_path):
    said = f"Alarm class_vanished in training: <b>& has 0 %, not 8 %. {ALARMS['class_vanished']}\n"
    alarm = {"alarm/class_vanished": 1.0, "alarm/few_classes": 0.0}
    selection = {"selection/iteration": -1, "selection/odd_classes": 1}
    run = made_up_run(
        tmp_path / "run<i>",
        evaluated(2, 50.0, **alarm, **selection | {"selection/information_maximization": 97.5}),
        evaluated(5, 46.5, **alarm | {"alarm/class_vanished": 0.0}, **selection)
        | {"sem_seg/mIoU-low": 40.0, "sem_seg/mIoU-high": 52.0},
        log=f"[11/30 10:00:00] pppc.engine.alarms WARNING: {said}",
    )
    source_only = made_up_run(tmp_path / "source_only", evaluated(5, 69.9), method="source_only")
    page = write_report([run, source_only], images=0)
    assert page == run / "report.html"
    headline = told(page)["verdict"]["headline"]
    assert headline == (
        "Adapting did harm: mIoU 46.5 %, source-only 69.9 % (-23.4). Alarm while training, over at "
        "the end: class_vanished (<b>& has 0 %, not 8 %). "
        "The choice without labels keeps the source-only model."
    )
    read = Page(page)
    assert "mIoU would be 40.0 to 52.0 % (95 %" in told(page)["verdict"]["sentences"][0]
    assert headline.replace(" %", "\u00a0%") in read.text and ALARMS["class_vanished"] in read.text
    assert "From iteration 3 to 3, then it was over" in read.text
    assert not read.all("b") and not read.all("i") and "<b>&amp;" not in page.read_text()
    assert "No image was asked for." in read.text
    chosen = [row for row in told(page)["evaluations"] if row["selected"]]
    assert chosen == [] and told(page)["evaluations"][0]["score"] == 97.5
    # Without labels the alarm is what is known.
    without = [{k: v for k, v in line.items() if "sem_seg" not in k}
               for line in (evaluated(5, 0, **alarm, **selection),)]  # fmt: skip
    page = write_report([made_up_run(tmp_path / "without", *without)], images=0)
    assert told(page)["verdict"]["state"] == "doubt"
    assert told(page)["runs"]["without"]["iou"] == {}


def test_seeds_are_summed_up_and_a_folder_of_adapt_stands_for_its_runs(tmp_path):
    for seed, mean in ((1, 40.0), (2, 44.0)):
        made_up_run(tmp_path / f"out/adapted_{seed}", evaluated(5, mean), opts=("SEED", seed))
    made_up_run(tmp_path / "out/source_only", evaluated(5, 30.0), method="source_only")
    runs = sorted((tmp_path / "out").iterdir())
    found = told(write_report(runs, tmp_path / "page.html", images=0))
    assert [group["mean_iou"] for group in found["seeds"]] == ["42.0 ± 2.8", "30.0"]
    assert found["verdict"]["headline"].startswith(
        "Adapting helped: mIoU 40.0 %, source-only 30.0 %"
    )
    differ = {row["key"] for row in found["settings"] if row["differs"]}
    assert {"SEED", "OUTPUT_DIR", "PPPC.CONTRAST.ENABLED"} < differ and found["settings"][0][
        "differs"
    ]
    (tmp_path / "out/adapted_1").rename(tmp_path / "out/adapted")
    (tmp_path / "out/plan.json").write_text("{}")
    page = write_report([tmp_path / "out"], images=0)
    assert page == tmp_path / "out/report.html"
    assert list(told(page)["runs"]) == ["adapted", "source_only"]


def test_what_is_no_run_is_refused_and_no_file_is_written_over(tmp_path, monkeypatch, caplog):
    with pytest.raises(InputError, match="nowhere is not there: give the folder of a run"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="holds no config.yaml"):
        write_report([tmp_path])
    run = made_up_run(tmp_path / "run", evaluated(5, 40.0))
    with pytest.raises(InputError, match="given twice"):
        write_report([run, run])
    mine = tmp_path / "mine.html"
    for other in (mine, mine.with_suffix(".csv")):
        other.write_text("mine")
        with pytest.raises(InputError, match=f"{other.name} exists and is of no report"):
            write_report([run], mine, images=0)
        other.unlink()
    for wrong, words in (("page.txt", "is no .html"), ("no/page.html", "is no folder")):
        with pytest.raises(InputError, match=words):
            write_report([run], tmp_path / wrong)
    monkeypatch.setattr(report_page, "gather", lambda *_: 1 / 0)
    try_report([run])
    assert "ZeroDivisionError" in caplog.text and not (run / "report.html").exists()
    monkeypatch.undo()
    # What the run lacks is said; written again, a report replaces its former one.
    for _ in range(2):
        page = write_report([run], mine)
    text = Page(page).text
    assert "No image was looked at: " in text and "holds no checkpoint" in text


def test_an_embedding_s_points_have_classes_and_need_scikit_learn(
    two_runs, datasets_root, monkeypatch
):
    model = pppc.load(two_runs.parent)
    model.model.prototypes.num_updates += 1
    source, target, prototypes = embeddings.embed(model, "tsne")
    for points in (source, target, prototypes):
        assert points.places.shape == (len(points.classes), 2) and points.classes.max() < 19
        assert np.isfinite(points.places).all()
    counts = np.bincount(target.classes)
    assert counts.max() <= embeddings.PIXELS * 6 and target.uncertainty.max() > 0
    with pytest.raises(InputError, match="trained without the contrast"):
        embeddings.embed(pppc.load(two_runs.parents[1] / "source_only"), "pca")
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        embeddings.embed(model, "pca")
