"""What samples and a start cost, in small."""

import loader_costs


def test_samples_and_a_start_are_timed(tmp_path, monkeypatch):
    for name in ("DETECTRON2_DATASETS", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")  # so that it is what it was afterwards
    monkeypatch.setattr(loader_costs.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(loader_costs.cv2, "setNumThreads", lambda number: None)
    table = loader_costs.samples(tmp_path, 1)
    assert "| published steps" in table and "; kept: 6." in table
    for _ in range(2):
        table = loader_costs.start(tmp_path / "labels", 12)
        assert "| check_data" in table and "| build_train_loader" in table
