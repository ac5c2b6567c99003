"""Several parties in one process, each in a thread: a hundred interpreters would need a hundred times their memory.

``python many_parties.py APP FOLDER LINKS``: LINKS is a file of JSON, a join link for each name.
"""

import json
import sys
import threading
from pathlib import Path

from koinon.app import App, party, resolve
from koinon.cli.app_file import load
from koinon.engines.catalogue import engine
from koinon.fleet.participant.connection import Reach
from koinon.fleet.participant.floors import Floors
from koinon.fleet.participant.participant import Participation, participate
from koinon.fleet.wire.link import JoinLink


def take_part(app: App, folder: Path, name: str, link: JoinLink) -> None:
    """Be one party until the run is over."""
    resolved = resolve(app, data=party(app, name, None))
    part = Participation(
        training=resolved.program(),
        engine=engine(resolved.engine),
        agreement=resolved.agreement(),
        name=name,
        link=link,
        floors=Floors(),
        reach=Reach(url=link.url),
    )
    participate(part, folder / name, lambda line: print(name, line, flush=True))


if __name__ == "__main__":
    file, folder, links = (Path(word) for word in sys.argv[1:])
    app = load(file)
    parties = [
        threading.Thread(target=take_part, args=(app, folder, name, JoinLink.parse(link)))
        for name, link in json.loads(links.read_text()).items()
    ]
    for one in parties:
        one.start()
    for one in parties:
        one.join()
