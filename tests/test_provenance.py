"""What is known of a folder's outputs, over runs that are interrupted and runs that cannot make everything."""

from core.runtime.provenance import Finished


def test_outputs_of_interrupted_runs_are_known(tmp_path):
    """Begun with settings b and left, gone on with b and another format, then a: of b nothing stays."""
    csv, rttm, speakers = (tmp_path / name for name in ("tracks.csv", "talk.rttm", "speakers.json"))
    Finished(tmp_path, {"settings": "b"}).begin([csv, rttm])
    csv.touch()
    rttm.touch()
    second = Finished(tmp_path, {"settings": "b"})
    second.begin([speakers])
    speakers.touch()
    second.end([speakers], None, {})
    assert not Finished(tmp_path, {"settings": "b"}).has([csv])
    third = Finished(tmp_path, {"settings": "a"})
    assert not third.has([speakers])
    third.begin([csv])
    assert {path.name for path in tmp_path.iterdir()} == {".finished.json"}


def test_what_was_impossible_once_is_done_when_it_is_done(tmp_path):
    overlay, csv = tmp_path / "overlay.mp4", tmp_path / "tracks.csv"
    csv.touch()
    Finished(tmp_path, {}).end([csv, overlay], "only in part", {"overlay.mp4": "the disk is away"})
    again = Finished(tmp_path, {})
    assert again.has([csv, overlay])
    assert again.faults([csv, overlay]) == ["only in part", "the disk is away"]
    assert again.faults([csv]) == ["only in part"]
    overlay.touch()
    again.end([csv, overlay], None, {})
    assert Finished(tmp_path, {}).faults([csv, overlay]) == []
    overlay.unlink()
    assert not Finished(tmp_path, {}).has([csv, overlay])
