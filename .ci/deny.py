"""Checks licences, sources, bans and duplicates by deny.toml, where cargo-deny is not installed.

cargo-deny has 211 packages and takes four to seven minutes to build on two cores, which is longer than
all other checks of dependencies together. This script reads the output of `cargo metadata`.
"""

import collections
import json
import re
import sys
import tomllib

with open("deny.toml", "rb") as file:
    rules = tomllib.load(file)
allowed = set(rules["licenses"]["allow"])
exceptions = {one["crate"]: set(one["allow"]) for one in rules["licenses"]["exceptions"]}
banned = {one["crate"] for one in rules["bans"]["deny"]}


def permitted(expression, allowed):
    """Returns True if the licences meet an SPDX expression: OR needs one side, AND both."""
    # An older form has a slash for OR.
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        met = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = both() or met
        return met

    def both():
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one():
        token = tokens.pop(0)
        if token == "(":
            met = either()
            tokens.pop(0)
            return met
        if tokens[:1] == ["WITH"]:
            tokens.pop(0)
            token += " WITH " + tokens.pop(0)
        return token in allowed

    return either()


assert permitted("MIT AND (GPL-3.0 OR ISC)", {"MIT", "ISC"})
assert not permitted("MIT AND GPL-3.0", {"MIT"})

try:
    metadata = json.load(sys.stdin)
except ValueError:
    sys.exit("deny.py reads what `cargo metadata` prints; `.ci/deny` runs both")
used = {node["id"] for node in metadata["resolve"]["nodes"]}
packages = [package for package in metadata["packages"] if package["id"] in used]
wrong = []
versions = collections.defaultdict(list)
for package in packages:
    name, licence, source = package["name"], package["license"], package["source"]
    versions[name].append(package["version"])
    if not licence or not permitted(licence, allowed | exceptions.get(name, set())):
        wrong.append(f"{name}: the licence {licence} is not allowed")
    if source not in (None, "registry+https://github.com/rust-lang/crates.io-index"):
        wrong.append(f"{name}: comes from {source}")
    if name in banned:
        wrong.append(f"{name}: is banned")
for name, found in sorted(versions.items()):
    if len(found) > 1:
        print(f"twice: {name} {' and '.join(found)}")
if not packages:
    wrong.append("cargo metadata listed no packages")
print(f"{len(packages)} packages checked, {len(wrong)} rejected")
sys.exit("\n".join(wrong) if wrong else 0)
