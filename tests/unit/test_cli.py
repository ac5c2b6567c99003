"""The commands as a user types them: what they print, where, and how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

APP = """
import koinon as kn
import linear

app = kn.App(
    model=linear.LinearModel(),
    clients=linear.clients((6, 8, 12)),
    algorithm=kn.fedavg(kn.sgd(0.05), epochs=2, batch_size=4, channel=(kn.Clip(1.0), kn.Quantise())),
    stop=kn.Stop(rounds=4),
)
"""  # starts at once: it needs no framework
COMPILED = """
import apps
import koinon as kn

app = kn.App(
    model=apps.model, clients=apps.clients, algorithm=apps.algorithm(), stop=kn.Stop(rounds=4)
)
"""


def koinon(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from koinon.cli.main import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_run_prints_one_object_and_logs_elsewhere(here: Path) -> None:
    (here / "app.py").write_text(COMPILED)
    done = koinon("run", "app.py", "--out", "kept", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"digest", "rounds", "stopped", "seconds", "metrics", "out"}
    assert result["rounds"] == 4
    assert result["out"] == "kept"
    assert "round 4/4" in done.stderr


@pytest.mark.parametrize("runtime", ["local", "processes"])
def test_what_an_app_prints_does_not_get_between_a_program_and_the_one_object(here: Path, runtime: str) -> None:
    app = "import koinon as kn\nimport numpy as np\n\nprint('loading')\n\ndef train(params, data, task):\n"
    app += "    print('training', flush=True)\n    return params, len(data[0]), {}\n\n"
    app += "loop = kn.OwnLoop(params={'w': np.zeros(2)}, train=train)\n"
    app += "app = kn.App(model=loop, clients={'paris': (np.ones((8, 2)), np.ones(8))}, stop=kn.Stop(rounds=1))\n"
    (here / "app.py").write_text(app)
    done = koinon("run", "app.py", "--json", "--set", f"runtime={runtime}", "--set", "workers=1", cwd=here)
    assert json.loads(done.stdout)["rounds"] == 1, done.stderr
    assert "loading" in done.stderr and "training" in done.stderr
    assert koinon("run", "app.py", cwd=here).stdout.startswith("loading\n")


def test_the_same_line_again_changes_nothing(here: Path) -> None:
    first = json.loads(koinon("run", "app.py", "--out", "kept", "--json", cwd=here).stdout)
    again = json.loads(koinon("run", "app.py", "--out", "kept", "--json", cwd=here).stdout)
    assert again == first


def killed_after(round_number: int, cwd: Path) -> None:
    """Start the run and kill it with -9 as soon as it says that a round is done."""
    command = [sys.executable, "-c", "from koinon.cli.main import main; main()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*command, "run", "app.py", "--out", "kept", "--set", "stop.rounds=200"],
        cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.split("/")[0].split() == ["round", str(round_number)]:
                    break
        finally:
            process.kill()


def test_a_run_killed_at_any_moment_goes_on_to_the_same_end(here: Path) -> None:
    whole = koinon("run", "app.py", "--set", "stop.rounds=200", "--json", cwd=here)
    for after in (1, 80):
        killed_after(after, here)
    rest = koinon("run", "app.py", "--out", "kept", "--set", "stop.rounds=200", "--json", cwd=here)
    assert rest.returncode == 0, rest.stderr
    assert "resumed after round" in rest.stderr
    assert json.loads(rest.stdout)["digest"] == json.loads(whole.stdout)["digest"]
    assert json.loads(rest.stdout)["metrics"] == json.loads(whole.stdout)["metrics"]


@pytest.mark.slow
def test_a_run_killed_again_and_again_at_random_goes_on_to_the_same_end(here: Path) -> None:
    whole = json.loads(koinon("run", "app.py", "--set", "stop.rounds=1500", "--json", cwd=here).stdout)
    command = [sys.executable, "-c", "from koinon.cli.main import main; main()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = ["run", "app.py", "--out", "kept", "--set", "stop.rounds=1500"]
    kills = 0
    for step in range(60):
        with subprocess.Popen(
            [*command, *arguments], cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                process.wait(timeout=1.2 + 0.037 * (step % 40))
                break
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
    rest = json.loads(koinon(*arguments, "--json", cwd=here).stdout)
    assert kills > 3
    assert rest["digest"] == whole["digest"]


def test_set_changes_a_field_and_names_the_nearest(here: Path) -> None:
    changed = koinon("run", "app.py", "--set", "work.epochs=1", "--set", "seed=3", "--json", cwd=here)
    assert changed.returncode == 0
    wrong = koinon("run", "app.py", "--set", "work.epoch=1", cwd=here)
    assert wrong.returncode == 2
    assert "Did you mean 'epochs'?" in wrong.stderr
    assert koinon("run", "app.py", "--set", "wrk.epochs=1", cwd=here).stderr.rstrip().endswith("Did you mean 'work'?")
    kind = koinon("run", "app.py", "--set", "work.epochs=many", cwd=here)
    assert kind.returncode == 2
    assert "int is asked for there (it is 2); found 'many'" in kind.stderr
    assert "FIELD=VALUE" in koinon("run", "app.py", "--set", "work.epochs", cwd=here).stderr
    deep = koinon("check", "app.py", "--set", "channel.0.norm=0.5", "--json", cwd=here)
    assert json.loads(deep.stdout)["wire"][1]["l2_bound"] == 0.5


def test_an_app_that_raises_shows_its_own_traceback(here: Path) -> None:
    (here / "app.py").write_text("def broken():\n    raise KeyError('age')\n\nbroken()\n")
    done = koinon("run", "app.py", cwd=here)
    assert done.returncode == 4
    assert "app.py" in done.stderr.splitlines()[1]
    assert done.stderr.rstrip().endswith("KeyError: 'age'")
    assert "koinon/cli" not in done.stderr


def test_an_app_file_that_ends_the_process_is_named_as_what_did(here: Path) -> None:
    (here / "app.py").write_text("import sys\nsys.exit(0)\n")
    done = koinon("check", "app.py", cwd=here)
    assert done.returncode == 4, "not as if all were done"
    assert "app.py" in done.stderr and "sys.exit(0)" in done.stderr


def test_what_a_clients_own_code_raises_is_shown_from_there_on(here: Path) -> None:
    app = "import koinon as kn\nimport numpy as np\n\ndef train(params, data, task):\n    return params, len(data[0]), {}\n"
    app += "\ndef evaluate(params, data):\n    return {'loss': 1 / (len(data) - 2)}\n"
    app += "\ndef load(path):\n    return np.load(path), np.zeros(8)\n"
    app += "\nloop = kn.OwnLoop(params={'w': np.zeros(2)}, train=train, evaluate=evaluate)\n"
    app += "app = kn.App(model=loop, data=load, clients={'paris': 'paris.npy'}, stop=kn.Stop(rounds=1))\n"
    (here / "app.py").write_text(app)
    missing = koinon("run", "app.py", cwd=here)
    np.save(here / "paris.npy", np.ones((8, 2)))
    judged = koinon("run", "app.py", cwd=here)
    assert (missing.returncode, judged.returncode) == (1, 1)
    assert "return np.load(path)" in missing.stderr and "return {'loss'" in judged.stderr
    assert "src/koinon" not in missing.stderr + judged.stderr, "koinon's own lines say nothing to who wrote the app"
    assert "Error: The App's data= cannot load 'paris.npy' for client 'paris': FileNotFoundError" in missing.stderr
    assert "Error: Client 'paris' failed while judging the model: ZeroDivisionError" in judged.stderr


def test_a_file_without_an_app_and_a_missing_file(here: Path) -> None:
    (here / "app.py").write_text(APP.replace("app = kn", "mine = kn"))
    done = koinon("run", "app.py", cwd=here)
    assert done.returncode == 2
    assert "has no App called app (but one called mine)" in done.stderr
    missing = koinon("run", "nothing.py", cwd=here)
    assert missing.returncode == 2
    assert "does not exist" in missing.stderr


def test_another_app_is_refused_its_directory(here: Path) -> None:
    koinon("run", "app.py", "--out", "kept", cwd=here)
    done = koinon("run", "app.py", "--out", "kept", "--set", "work.epochs=5", cwd=here)
    assert done.returncode == 1
    assert "another algorithm.work.epochs: it has 2, and this app has 5" in done.stderr


def test_a_directory_in_use_is_refused(here: Path) -> None:
    command = [sys.executable, "-c", "from koinon.cli.main import main; main()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = ["run", "app.py", "--out", "kept", "--set", "stop.rounds=1000000"]
    with subprocess.Popen([*command, *arguments], cwd=here, env=environment, stderr=subprocess.DEVNULL) as first:
        try:
            deadline = time.monotonic() + 60
            while not (here / "kept" / "journal.sqlite").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            done = koinon(*arguments, cwd=here)
        finally:
            first.kill()
    assert done.returncode == 1
    assert f"in use by another process (number {first.pid})" in done.stderr


def test_divergence_ends_with_its_own_status(here: Path) -> None:
    (here / "app.py").write_text(
        HUGE + COMPILED.replace("clients=apps.clients", "clients=huge").replace("apps.model", "model")
    )
    done = koinon("run", "app.py", cwd=here)
    assert done.returncode == 3
    assert "diverged: All 6 clients of the round were refused" in done.stderr


HUGE = """
import apps, koinon as kn
def huge():
    return {name: (x * 1e12, y) for name, (x, y) in apps.clients().items()}
model = kn.FunctionModel(apps.init, lambda params, x, y: (x @ params["w"].sum(1) - y) ** 2)
"""


def test_check_says_what_travels(here: Path) -> None:
    (here / "app.py").write_text(COMPILED)
    facts = json.loads(koinon("check", "app.py", "--json", cwd=here).stdout)
    assert [step["step"] for step in facts["wire"]] == ["update", "Clip(norm=1.0)", "Quantise(bits=8, block=None)"]
    assert facts["parameters"] == 19
    assert facts["wire"][0]["bytes"] == 76
    assert facts["wire"][2]["bytes"] < 76
    assert "no differential privacy" in facts["privacy"]
    text = koinon("check", "app.py", cwd=here).stdout
    assert "norm at most 1" in text
    assert "server memory" in text


def test_report_writes_a_page_of_a_kept_run(here: Path) -> None:
    koinon("run", "app.py", "--out", "kept", cwd=here)
    done = koinon("report", "kept", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 4
    page = (here / "kept" / "report.html").read_text()
    assert "<svg" in page
    assert "site-2" in page
    nothing = koinon("report", ".", cwd=here)
    assert nothing.returncode == 1
    assert "holds no run" in nothing.stderr


def test_help_and_version(here: Path) -> None:
    assert "demo" in koinon("--help", cwd=here).stdout
    assert koinon("run", "--nonsense", cwd=here).returncode == 2
