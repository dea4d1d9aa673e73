"""``python -m epigraph.bench.apart JSON``: one contest in this process; its outcomes as one line of JSON."""

import json
import sys

from epigraph.base import load_base
from epigraph.bench.contest import Plan, contest


def main() -> None:
    """Run what was asked."""
    asked = json.loads(sys.argv[1])
    base = load_base(asked["base"], dtype=asked["dtype"])
    found = contest(base, asked["method"], Plan(**asked["plan"]), batch=asked["batch"])
    print(json.dumps([outcome.json for outcome in found]))


if __name__ == "__main__":
    main()
