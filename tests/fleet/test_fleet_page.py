"""What docs/fleet.md tells two hospitals to do, done with its own files on 127.0.0.1, over TLS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from docs import pages
from fleet.processes import Fleet, Process, simulated

PAGE = pages.ROOT / "docs" / "fleet.md"


def write_files(folder: Path) -> None:
    """Write the page's app, and its tables as its own code makes them."""
    app, tables = (block for block in pages.blocks(PAGE) if block.language == "python")
    (folder / "heart.py").write_text("\n".join(app.lines))
    subprocess.run([sys.executable, "-c", "\n".join(tables.lines)], cwd=folder, check=True, timeout=60)


def doctor(fleet: Fleet, *words: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return its status, and each check's verdict and finding."""
    process = Process("doctor", ["doctor", *words, "--json"], fleet.folder).start()
    try:
        status = process.wait(60)
    finally:
        process.kill()
    said = json.loads(process.said())
    return status, {check["check"]: (check["verdict"], check["found"]) for check in said["checks"]}


def test_two_hospitals_do_what_the_page_says(tmp_path: Path) -> None:
    write_files(tmp_path)
    app = tmp_path / "heart.py"
    rehearsed = simulated(app, tmp_path)
    with Fleet(tmp_path, app, tls=True) as fleet:
        fleet.serve()
        links = {name: fleet.invite(name) for name in ("paris", "lyon")}
        status, found = doctor(fleet, links["lyon"], "heart.py")
        assert (status, {verdict for verdict, _ in found.values()}) == (0, {"ok"}), found
        status, found = doctor(fleet, links["lyon"], "heart.py", "--set", "work.epochs=2")
        assert status == 1
        assert found["app"] == ("wrong", "heart has another algorithm.work.epochs: 1, and this app has 2")
        for name, link in links.items():
            fleet.join(name, link=link, options=["--data", f"{name}.csv"])
        assert fleet.finishes(120) == rehearsed
        for process in fleet.participants.values():
            assert process.wait(60) == 0
            assert f"digest {rehearsed}" in process.said() and "Without --data" not in process.said()
        assert (tmp_path / "lyon" / "heart.safetensors").is_file()


def test_a_party_that_has_joined_is_known_to_the_doctor_by_its_folder(tmp_path: Path) -> None:
    write_files(tmp_path)
    with Fleet(tmp_path, tmp_path / "heart.py", tls=True) as fleet:
        fleet.serve()
        link = fleet.invite("lyon")
        lyon = fleet.join("lyon", link=link, options=["--data", "lyon.csv"])
        fleet.until("lyon has joined", lambda: "Joined heart" in lyon.said(), 60)
        assert doctor(fleet, link)[1]["invitation"][0] == "wrong"
        assert "is in use" in doctor(fleet, link, "--dir", "lyon")[1]["invitation"][1]
        lyon.kill()
        status, found = doctor(fleet, link, "heart.py", "--dir", "lyon")
        assert (status, {verdict for verdict, _ in found.values()}) == (0, {"ok"}), found
