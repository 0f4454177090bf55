"""Ray, submitit and plain Slurm scripts, without a cluster: two Ray nodes and a pretended Slurm on this machine."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.batch import engines
from circuit_tracer_cli.batch import store as store_module
from circuit_tracer_cli.batch.engines import Resources, SlurmJob, run_ray, sbatch_script, submit_slurm
from circuit_tracer_cli.batch.plan import PlannedBatch
from circuit_tracer_cli.batch.worker import WorkList, forget_failures, open_batch
from circuit_tracer_cli.cli.app import run
from circuit_tracer_cli.errors import InvalidValue
from tests.batch.conftest import CITIES, SOURCE, Batch, command, good_rows, write_prompts
from tests.batch.test_runs import LEFT_BEHIND, assert_same_objects

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=circuit-tracer
#SBATCH --array=0-3%2
#SBATCH --time=60
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --output='{root}/slurm/%A_%a.log'
#SBATCH --gpus-per-node=1
#SBATCH --partition=short
#SBATCH --mail-type=FAIL
set -eu
{python} -m circuit_tracer_cli batch '{root}' --part ${{SLURM_ARRAY_TASK_ID}}/4
"""


@pytest.fixture
def planned(tmp_path: Path) -> PlannedBatch:
    """A batch that is planned and not worked on."""
    root = tmp_path / "a batch"
    prompts = write_prompts(tmp_path / "p.jsonl", good_rows())
    assert run(command(prompts, root, "--print-sbatch")) == 0
    return open_batch(root)


def test_the_plain_script_is_one_that_bash_reads(planned: PlannedBatch) -> None:
    job = SlurmJob(jobs=4, at_once=2, minutes=60, partition="short", extra=("mail_type=FAIL",))
    script = sbatch_script(planned, job, Resources(gpus_per_worker=1, cpus_per_worker=8))
    assert script == SCRIPT.format(root=planned.store.root.resolve(), python=sys.executable)
    assert (planned.store.root / "slurm").is_dir()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    with pytest.raises(InvalidValue, match="name=value"):
        sbatch_script(planned, SlurmJob(extra=("mail",)), Resources())


def test_shares_cover_all_prompts_whenever_jobs_start(planned: PlannedBatch) -> None:
    store = planned.store
    first = WorkList(planned, 0, 3)
    taken = [first.next(), first.next()]
    for item in taken:
        assert item is not None
        path = store.result(item.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        graphs = store.root / "graphs"
        graphs.mkdir(exist_ok=True)
        (graphs / f"{item.slug}.json").touch()
    late = WorkList(planned, 1, 3)
    found = set[str]()
    while (item := late.next()) is not None:
        found.add(item.key)
    assert found | {item.key for item in taken if item} == {item.key for item in planned.items}
    assert len(found) == len(CITIES) - 2


def test_what_another_process_works_on_comes_last(planned: PlannedBatch) -> None:
    expected = WorkList(planned).next()
    assert expected is not None
    with planned.store.working_on(expected.key):
        work = WorkList(planned)
        order = [work.next() for _ in CITIES]
    assert order[-1] == expected
    assert work.next() is None


@pytest.mark.long
def test_jobs_of_submitit_on_this_machine(
    planned: PlannedBatch, reference: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for job in submit_slurm(planned, SlurmJob(jobs=2, cluster="local"), Resources()):
        job.result()
    assert_same_objects(Batch(planned.store.root, 0), reference)


FAKE_SBATCH = """\
#!/bin/bash
# Give the array a number at once and run its jobs one after the other meanwhile, as Slurm would.
script="${@: -1}"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
(for task in $(seq 0 "${last:-0}"); do
  SLURM_JOB_ID=$((70 + task)) SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$task SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 \\
  SLURM_NNODES=1 SLURM_NODEID=0 SLURM_JOB_NODELIST=localhost SLURM_JOB_NUM_NODES=1 bash "$script"
  echo "77_$task|COMPLETED|localhost" >> "$0.states"
done) > "$0.log" 2>&1 &
cp "$script" "$0.script"
echo "Submitted batch job 77"
"""
FAKE_SACCT = """\
#!/bin/bash
echo "JobID|State|NodeList"
cat "$(dirname "$0")/sbatch.states" 2>/dev/null || true
"""
FAKE_SRUN = """\
#!/bin/bash
while [[ "$1" == -* ]]; do
  case "$1" in --output|--error) shift 2 ;; *) shift ;; esac
done
exec "$@"
"""


@pytest.mark.long
def test_the_slurm_path_of_submitit_with_a_pretended_slurm(
    planned: PlannedBatch, reference: Batch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("submitit")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("sbatch", FAKE_SBATCH), ("srun", FAKE_SRUN), ("sacct", FAKE_SACCT)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    jobs = submit_slurm(planned, SlurmJob(jobs=2, at_once=1, extra=("account=me",)), Resources())
    assert [job.job_id for job in jobs] == ["77_0", "77_1"]
    outcomes = [job.result() for job in jobs]
    assert sum(outcome["done"] for outcome in outcomes) == len(CITIES), (tools / "sbatch.log").read_text()
    assert_same_objects(Batch(planned.store.root, 0), reference)
    script = (tools / "sbatch.script").read_text()
    for line in ("--array=0-1%1", "--account=me", "--cpus-per-task=1", "--time=240"):
        assert f"#SBATCH {line}" in script


class Nodes:
    """A head and a second node, which is killed while prompts are traced, and replaced."""

    def __init__(self, cluster: Any, kills: int) -> None:
        self._cluster, self.left = cluster, kills
        self._small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        self._random = random.Random(3)
        self._second = cluster.add_node(**self._small)
        cluster.wait_for_nodes()

    def kill_during(self, batch: PlannedBatch) -> None:
        """Work the batch off, killing the second node at a random moment of the work."""
        ended = threading.Event()

        def kill() -> None:
            while not any((batch.store.root / "running").glob("*")):
                if ended.wait(0.05):
                    return
            ended.wait(self._random.random())
            self._cluster.remove_node(self._second, allow_graceful=False)
            self.left -= 1
            self._second = self._cluster.add_node(**self._small)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        run_ray(batch, lambda *_: None, Resources(workers=2))
        ended.set()
        killer.join(120)


@pytest.mark.long
def test_two_ray_nodes_of_which_one_is_killed_three_times(
    planned: PlannedBatch, reference: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for module in (engines, store_module):  # a silent worker's prompt is given to another after seconds
        monkeypatch.setattr(module, "FRESH", 8.0)
    head = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        nodes = Nodes(cluster, kills=3)
        while nodes.left:
            for folder in ("objects", "graphs", "errors"):
                shutil.rmtree(planned.store.root / folder, ignore_errors=True)
            nodes.kill_during(planned)
            forget_failures(planned, final=False)
            if planned.open_items():  # a prompt whose node is killed three times is given up in a run
                run_ray(planned, lambda *_: None, Resources(workers=2))
            batch = Batch(planned.store.root, 0)
            assert_same_objects(batch, reference)
            assert not [name for name in batch.files() if LEFT_BEHIND.search(name)]
    finally:
        if ray.is_initialized():
            ray.shutdown()
        cluster.shutdown()
