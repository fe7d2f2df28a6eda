"""Where the slowest answers spent their time: single short texts at random times to `onepass serve`.

    python tail.py --rate 600 --seconds 5

Prints, for the middle fifth of the requests and for the slowest hundredth, the mean milliseconds of each stage as
`load.where` names them. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json

import click
from cores import add_cores, keep_to
from live import serving
from load import Plan
from server import loaded, singles


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--random", action="store_true", help="random weights and a made-up vocabulary")
    add_cores(parser)
    arguments = parser.parse_args()
    keep_to(arguments.server_cores)
    work = singles(arguments.random)
    with serving(model=f"{work.model}={work.folder}") as live:
        url, bodies = live.address + work.path["onepass"], work.bodies["onepass"]
        for rate, seconds in ((arguments.rate / 4, 1), (arguments.rate, arguments.seconds)):  # first to warm up
            one = loaded(Plan(url, bodies, 16, seconds, rate=rate), arguments.client_cores)
    stages = one["stages"]
    click.echo(f"{'':<10}" + "".join(f"{stage:>14}" for stage in stages["middle"]))
    for part, means in stages.items():
        click.echo(f"{part:<10}" + "".join(f"{milliseconds:>14.2f}" for milliseconds in means.values()))
    click.echo(json.dumps({"benchmark": "tail"} | one))


if __name__ == "__main__":
    main()
