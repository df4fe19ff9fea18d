"""bench/run_gpu.sh with stand-ins for Python and the driver: arguments, stages, time and resuming."""

import os
import subprocess
import time

import pytest

from bench.fingerprint import ROOT

SCRIPT = ROOT / "bench" / "run_gpu.sh"
# Logs how it was called; SLOW makes the stage with that word in its call sleep, FAIL makes it fail.
PYTHON = """#!/bin/bash
echo "$*" | head -n 1 >> "$LOG"
case "$*" in
  *source_digest*) echo 0123456789ab ;;
  *"import pytest_benchmark"*) exit "${NO_BENCHMARK:-0}" ;;
  *Recorder*) exit "${OTHER_MACHINE:-0}" ;;
  "- "*) cat > /dev/null; ls "$2"/*.whl ;;
esac
[ -z "$SLOW" ] || [[ "$*" != *"$SLOW"* ]] || sleep 60
[ -z "$FAIL" ] || [[ "$*" != *"$FAIL"* ]] || exit 3
exit 0
"""


@pytest.fixture
def script(tmp_path):
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "python").write_text(PYTHON)
    (fake / "nvidia-smi").write_text("#!/bin/bash\necho 9.0\n")
    for file in fake.iterdir():
        file.chmod(0o755)
    log = tmp_path / "log"
    log.touch()

    def run(*arguments, **environment):
        given = {"PATH": f"{fake}:{os.environ['PATH']}", "PYTHON": str(fake / "python"), "LOG": str(log)}
        done = subprocess.run(
            ["bash", str(SCRIPT), *map(str, arguments)],
            env=os.environ | given | environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        calls = log.read_text().splitlines()
        log.write_text("")
        return done, calls

    return run


def status(tmp_path):
    return (tmp_path / "out" / "status.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "OUT is missing"),
        (["out", "more"], "one OUT expected, got 'out' and 'more'"),
        (["out", "--fast"], "--fast: unknown option"),
        (["out", "--only"], "--only: needs a value"),
        (["out", "--minutes", "soon"], "--minutes: expected a whole number from 1 to 999, got 'soon'"),
        (["out", "--minutes", "0"], "--minutes: expected a whole number"),
        (["out", "--wheels", "nowhere"], "--wheels: no folder 'nowhere'"),
        (["out", "--resume", "nothing"], "--resume: no file 'nothing'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_start_nothing(script, tmp_path, arguments, message):
    done, calls = script(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert calls == []
    assert not (tmp_path / "out").exists()


def test_help():
    done = subprocess.run(["bash", str(SCRIPT), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: bench/run_gpu.sh OUT")


def test_stages_in_order(script, tmp_path):
    done, calls = script("out")
    assert done.returncode == 0, done.stdout
    stages = [call for call in calls if call.startswith("-m p")]
    assert stages[0].startswith("-m pip list")
    assert stages[1] == "-m pip install --no-deps --no-build-isolation -e ."
    assert stages[2].startswith("-m pytest -m gpu tests")
    assert stages[3].startswith("-m pytest bench --benchmark-only")
    assert f"--results {tmp_path}/out/results.json --resume --only */cuda/* --minutes 8." in stages[3]
    assert {"machine.log", "build.log", "tests.log", "rows.log", "status.txt"} <= set(
        os.listdir(tmp_path / "out")
    )
    assert [line.split(" after")[0] for line in status(tmp_path).splitlines()] == [
        "build: exit 0", "tests: exit 0", "tests passed for 0123456789ab", "rows: exit 0",
    ]  # fmt: skip


def test_only_and_no_tests(script, tmp_path):
    _, calls = script("out", "--only", "heatmap/*,decode/*", "--no-tests", "--minutes", "3")
    assert not [call for call in calls if "gpu tests" in call]
    assert "--only heatmap/*,decode/* --minutes 2." in calls[-1]
    assert "tests: left out" in status(tmp_path)


def test_a_failing_stage_does_not_stop_the_next(script, tmp_path):
    done, calls = script("out", FAIL="pip install")
    assert done.returncode == 1
    assert "build: exit 3" in status(tmp_path)
    assert "rows: exit 0" in status(tmp_path)
    assert calls[-1].startswith("-m pytest bench")


@pytest.mark.slow
def test_the_end_comes_before_the_time(script, tmp_path):
    began = time.monotonic()
    done, calls = script("out", "--minutes", "1", SLOW="gpu tests")
    assert time.monotonic() - began < 60
    assert done.returncode == 1
    assert "tests: exit 124" in status(tmp_path)
    assert "stopped at its limit" in status(tmp_path)
    assert calls[-1].startswith("-m pytest bench")


def test_tests_that_passed_with_these_sources_are_not_run_again(script, tmp_path):
    script("out")
    _, calls = script("out")
    assert not [call for call in calls if "gpu tests" in call]
    assert "tests: passed before, with the same sources" in status(tmp_path)
    script("again", FAIL="gpu tests")
    _, calls = script("again")
    assert [call for call in calls if "gpu tests" in call]


def test_resume_takes_the_earlier_results(script, tmp_path):
    (tmp_path / "earlier.json").write_text("rows")
    script("out", "--resume", "earlier.json")
    assert (tmp_path / "out" / "results.json").read_text() == "rows"


def test_results_of_another_machine_are_put_aside(script, tmp_path):
    (tmp_path / "earlier.json").write_text("rows")
    done, calls = script("out", "--resume", "earlier.json", OTHER_MACHINE="1")
    assert done.returncode == 0
    assert (tmp_path / "out" / "results.other.json").read_text() == "rows"
    assert not (tmp_path / "out" / "results.json").exists()
    assert calls[-1].startswith("-m pytest bench")


def test_wheels_that_are_missing_are_installed(script, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "pybind11-3.1.0-py3-none-any.whl").touch()
    _, calls = script("out", "--wheels", "wheels")
    (install,) = [call for call in calls if "--target" in call]
    assert install.startswith("-m pip install --quiet --no-deps --no-compile --target ")
    assert install.endswith(f"{wheels}/pybind11-3.1.0-py3-none-any.whl")


def test_without_pytest_benchmark_the_rows_run_all_the_same(script):
    _, calls = script("out", NO_BENCHMARK="1")
    assert calls[-1].startswith("-m pytest bench -q")
