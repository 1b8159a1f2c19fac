"""Many files on a cluster of Ray: of this machine, and of two that are processes of it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli_helpers import picture
from difflate.cli.main import main
from difflate.data.latents import shard_files
from latent_helpers import squares

RAY = ("--jobs", "2", "--engine", "ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_on_a_cluster_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.data")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)
    squares(Path("cats"), 5, broken=(3,))
    for out, words in (("one", ("--workers", "0")), ("ray", RAY), ("ray", RAY)):
        assert main(["latents", "cats", "-o", out, "--shard-images", "2", *words]) == 0
    assert [path.read_bytes() for path in shard_files(Path("ray"))] == [
        path.read_bytes() for path in shard_files(Path("one"))
    ]

    Path("images").mkdir()
    for name in ("a", "b"):
        picture().save(f"images/{name}.png")
    Path("images/c.png").write_text("Dear Sir")
    results = []
    for out, words in (("report", ()), ("report-ray", RAY)):
        assert main(["eval", "images", "--codecs", "jpeg:50,opq-32-8-8", "--out", out, *words]) == 3
        results.append(json.loads(Path(out, "results.json").read_text()))
        for record in results[-1]["records"]:
            del record["encode_s"], record["decode_s"]
    assert results[0]["records"] == results[1]["records"]
    assert results[1]["protocol"]["jobs"] == 2
    assert results[1]["protocol"]["peak_memory_bytes"] > 1e7
    assert not list(Path("report-ray").glob(".difflate*"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_machine_that_dies_costs_no_file(tmp_path: Path) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    (tmp_path / "in").mkdir()
    for number in range(300):
        picture(size=(200, 150)).save(tmp_path / f"in/{number}.png")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        machine = cluster.add_node(num_cpus=2)
        words = ["compress", "in", "-o", "out", "--codec", "opq-32-8-8", *RAY]
        environment = {**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = subprocess.Popen([sys.executable, "-m", "difflate", *words], cwd=tmp_path, env=environment)
        end = time.monotonic() + 120
        while len(list(tmp_path.glob("out/*.dfl"))) < 3:
            assert command.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
        cluster.remove_node(machine, allow_graceful=False)
        assert command.poll() is None
        cluster.add_node(num_cpus=2)
        assert command.wait(240) == 0
    finally:
        cluster.shutdown()
    files = {path.read_bytes() for path in tmp_path.glob("out/*.dfl")}
    assert len(files) == 1
    assert len(list(tmp_path.glob("out/*.dfl"))) == 300
