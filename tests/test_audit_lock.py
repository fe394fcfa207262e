"""The check of the dependencies notices what it is there to notice."""

from email.message import Message

import pytest

from tests.audit_lock import pins, problems
from tests.conftest import ROOT

HASHES = "    --hash=sha256:00 \\\n    --hash=sha256:11\n"
LOCK = f"a==1.0 \\\n{HASHES}    # via x\nb==2 ; python_version < '4'\n"


class Distribution:
    def __init__(self, name, version, **about):
        self.version, self.metadata = version, Message()
        self.metadata["Name"] = name
        for key, value in about.items():
            self.metadata[key.replace("_", "-")] = value


def test_a_sound_package_is_no_problem():
    assert problems(LOCK.split("b==")[0], [Distribution("A", "1.0", License="MIT")]) == []


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (Distribution("a", "1.1", License="MIT"), "but the lock says 1.0"),
        (Distribution("c", "1", License="MIT"), "not in the lock"),
        (Distribution("a", "1.0"), "declares no licence"),
        (Distribution("a", "1.0", License_Expression="AGPL-3.0-only"), "not allowed"),
        (Distribution("a", "1.0", License="My own terms"), "not allowed"),
        (Distribution("a", "1.0", License_Expression="MIT AND GPL-3.0-only"), "not allowed"),
    ],
)
def test_what_is_not_as_it_should_be_is_named(distribution, message):
    assert any(message in line for line in problems(LOCK, [distribution]))


def test_a_package_without_a_hash_is_named():
    assert problems(LOCK, []) == ["line 5: b==2 has no hash"]
    with pytest.raises(ValueError, match="line 1"):
        pins("a>=1\n")


def test_every_package_of_our_lock_is_pinned_with_hashes():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert problems(lock, []) == []
    assert len(pins(lock)) > 100
