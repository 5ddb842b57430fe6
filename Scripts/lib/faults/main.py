"""One head, three branches and one that comes and goes, under faults.    main.py SERVERS SECONDS SEED TAMPER
SCRIPTS OFFICE=URL..."""

import sys
import time
from os.path import dirname, realpath

HERE = dirname(realpath(__file__))
sys.path[:0] = [dirname(HERE), f"{dirname(HERE)}/histories"]

from company import Broken as Stuck
from places import Broken, Places
from soup import Soup
from spoil import missed
from tables import OFFICES, TABLES
from verdict import failed, say, summary


def main():
    servers, seconds, seed, tamper, scripts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    urls = dict(argument.split("=", 1) for argument in sys.argv[6:])
    began = time.monotonic()
    with open(f"{servers}/events.log", "a", buffering=1) as events:
        places = Places(servers, scripts, list(urls), urls)
        soup = Soup(places, seed, seconds, lambda text: events.write(f"{time.monotonic() - began:8.2f} s  {text}\n"))
        try:
            for office in OFFICES:
                places.hubs[office].start()
            evidence = soup.run()
            with open(f"{servers}/conflicts.log", "w") as file:
                file.writelines(f"{entry}\n" for entry in evidence.conflicts)
            found = evidence.violations()
            summary(soup, evidence, found, time.monotonic() - began)
            if found:
                failed(soup, evidence, found)
                return 1
            return 1 if tamper == "1" and missed(evidence, say) else 0
        except (Broken, Stuck) as broken:
            say(f"  {broken}; seed {seed}")
            for problem in places.problems:
                say(f"  {problem}")
            return 1
        finally:
            places.close()


sys.exit(main())
