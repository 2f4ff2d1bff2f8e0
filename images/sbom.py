"""Write the images' bills of materials: ``sbom.py`` (``make sbom``).

One CycloneDX document for each image, dist/sbom/IMAGE.cdx.json: the Python packages that the image
itself holds (not what a lock says it should), with their licences and who needs whom. The system's
packages belong to the base image's own bill.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from build import IMAGES, ROOT, version
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "kubevo"


def described(image: str, tag: str) -> Bom:
    """Return the bill of one image.

    Raises:
        SystemExit: docker does not have the image.
    """
    with tempfile.TemporaryDirectory() as name:
        for number, (path, content) in enumerate(_metadata(f"{image}:{tag}")):
            folder = Path(name, f"{number}-{path.parent.name}")
            folder.mkdir()
            (folder / path.name).write_bytes(content)
        found = sorted(distributions(path=[name]), key=lambda each: each.name.lower())
        return _bill(image, tag, found)


def _metadata(image: str) -> Iterator[tuple[Path, bytes]]:
    """Yield each METADATA file of an image; the image is not started."""
    made = subprocess.run(
        ["docker", "create", image, "none"], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise SystemExit(f"{image}: {made.stderr.strip()}; build it first: make images")
    container = made.stdout.strip()
    try:
        command = ["docker", "export", container]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as exported:
            with tarfile.open(fileobj=exported.stdout, mode="r|") as tar:
                for member in tar:
                    path = Path(member.name)
                    if path.name == "METADATA" and path.parent.suffix == ".dist-info":
                        held = tar.extractfile(member)
                        assert held is not None
                        yield path, held.read()
            assert exported.stdout is not None
            exported.stdout.read()  # the end of the archive; else docker complains of a closed pipe
    finally:
        subprocess.run(["docker", "rm", container], capture_output=True, check=True)


def _bill(image: str, tag: str, found: list[Distribution]) -> Bom:
    components = {canonicalize_name(each.name): _component(each) for each in found}
    bill = Bom()
    bill.metadata.component = Component(
        name=image, version=tag, type=ComponentType.CONTAINER, bom_ref=f"{image}:{tag}"
    )
    bill.components.update(components.values())
    needed: set[str] = set()
    for each in found:
        needs = [components[name] for name in _needs(each, components)]
        needed |= {component.bom_ref.value or "" for component in needs}
        bill.register_dependency(components[canonicalize_name(each.name)], needs)
    roots = [each for each in components.values() if each.bom_ref.value not in needed]
    bill.register_dependency(bill.metadata.component, roots)
    return bill


def _component(found: Distribution) -> Component:
    name = canonicalize_name(found.name)
    purl = PackageURL("pypi", name=name, version=found.version)
    licenses = LicenseFactory()
    # The expression of new packages, else the text of old ones where it is a name and no document.
    told = found.metadata.get("License-Expression") or (found.metadata.get("License") or "").strip()
    named = [told] if told and len(told) < 100 and "\n" not in told else _classified(found)
    return Component(
        name=found.name,
        version=found.version,
        type=ComponentType.APPLICATION if name == OURS else ComponentType.LIBRARY,
        description=found.metadata.get("Summary"),
        purl=purl,
        bom_ref=str(purl),
        licenses=[licenses.make_from_string(each) for each in named],
    )


def _classified(found: Distribution) -> list[str]:
    prefix = "License :: "
    told = found.metadata.get_all("Classifier") or []
    return sorted({each.split(" :: ")[-1] for each in told if each.startswith(prefix)})


def _needs(found: Distribution, components: Mapping[str, Component]) -> set[str]:
    """Return the packages that one needs and that are there; ours needs what its extras name."""
    needs = set()
    for text in found.requires or []:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name in components and (wanted or found.name == OURS):
            needs.add(name)
    return needs


def main() -> int:
    """Write the bills and return the exit code."""
    parser = argparse.ArgumentParser(
        description="Write the images' bills of materials (CycloneDX)."
    )
    parser.add_argument("--tag", default=version())
    parser.add_argument("--out", type=Path, default=ROOT / "dist/sbom")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for image in IMAGES:
        bill = described(image.name, chosen.tag)
        text = JsonV1Dot6(bill).output_as_string(indent=2)
        target = chosen.out / f"{image.name}.cdx.json"
        target.write_text(text + "\n")
        print(f"{target}: {len(bill.components)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
