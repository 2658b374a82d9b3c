"""The published package as installed by a user: an sdist, its wheel, a fresh environment.

Building needs the package index, and npm where the page is not built; the environment takes the time: 2 minutes.
"""

import json
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from millm import __version__
from tests.clients.environments import TORCH, outside
from tests.fixtures.process import Server, running

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CHECKERS = ("twine==7.0.0", "check-wheel-contents==0.6.3")


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """The output of a successful command, without variables of miLLM."""
    environment = {**outside(), "NO_COLOR": "1", **variables}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="module")
def dist(work: Path) -> Path:
    """`python -m build`: the sdist of this folder, and the wheel of that sdist."""
    run(sys.executable, "-m", "build", "--outdir", work / "dist", ROOT, cwd=work)
    return work / "dist"


@pytest.fixture(scope="module")
def sdist(dist: Path) -> Path:
    return dist / f"millm-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"millm-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(work: Path, wheel: Path) -> Path:
    """The programs of a fresh environment that holds the wheel and what it needs."""
    run(sys.executable, "-m", "venv", work / "venv", cwd=work)
    programs = work / "venv" / "bin"
    install = (programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, TORCH, cwd=work)
    run(*install, "--constraint", ROOT / "constraints.txt", wheel, cwd=work)
    return programs


@pytest.fixture(scope="module")
def home(work: Path, demo_home: Path, demo_folder: Path) -> Path:
    """With the demo's weights, and nothing else."""
    folder = work / "home"
    folder.mkdir()
    (folder / "demo").symlink_to(demo_folder.parent)
    return folder


@pytest.fixture(scope="module")
def demo(installed: Path, home: Path) -> Iterator[Server]:
    program: Sequence[str] = (str(installed / "millm"),)
    with running(
        "demo", model="smollm2-135m-instruct", home=home, program=program, variables={"PYTHONPATH": ""}
    ) as server:
        yield server


def test_published_files_are_well_formed(work: Path, sdist: Path, wheel: Path) -> None:
    run(sys.executable, "-m", "venv", work / "checkers", cwd=work)
    programs = work / "checkers" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *CHECKERS, cwd=work)
    run(programs / "twine", "check", "--strict", sdist, wheel, cwd=work)
    run(programs / "check-wheel-contents", wheel, cwd=work)


def test_the_wheel_holds_all_runtime_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        page = archive.read("millm/web/index.html").decode()
    profiles = {path.name for path in (ROOT / "src" / "millm" / "demo" / "profiles").glob("*.json")}
    assert {name.rpartition("/")[2] for name in names if name.startswith("millm/demo/profiles/")} == profiles
    needed = {"sae_weights.safetensors", "cfg.json", "labels.jsonl"}
    assert {f"millm/demo/sae/{name}" for name in needed} <= names
    assert {"millm/py.typed", "millm/sae/calibration.txt", "millm/hub/sae_index.json.xz"} <= names
    assert 'id="root"' in page
    assert {name for name in names if name.startswith("millm/web/assets/") and name.endswith((".js", ".css"))}
    assert not [name for name in names if not name.startswith(("millm/", f"millm-{__version__}.dist-info/"))]
    assert wheel.stat().st_size < 15_000_000


def test_the_sdist_holds_exactly_its_sources(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    root_files = ("pyproject.toml", "hatch_build.py", "constraints.txt", "Makefile", "LICENSE", "NOTICE", "SECURITY.md")
    assert {*root_files, "src/millm/web/index.html", "ui/package-lock.json", "examples/heat_map.py"} <= names
    assert not [name for name in names if "node_modules" in name or "__pycache__" in name or ".cache" in name]
    assert sdist.stat().st_size < 20_000_000


def test_the_package_runs_from_its_environment(installed: Path, work: Path) -> None:
    output = run(installed / "python", "-c", "import millm; print(millm.__file__, millm.__version__)", cwd=work)
    assert output.split() == [str(next(work.glob("venv/lib/python*/site-packages/millm/__init__.py"))), __version__]
    assert run(installed / "millm", "--version", cwd=work) == f"millm {__version__}\n"
    assert run(installed / "python", "-m", "pip", "check", cwd=work) == "No broken requirements found.\n"


def test_help_is_fast(installed: Path, work: Path) -> None:
    """Warm, in seconds of processor time, which do not depend on other load."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "millm demo" in run(installed / "millm", "--help", cwd=work)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(4)) < 0.5


def test_the_doctor_finds_nothing_wrong(installed: Path, home: Path, work: Path) -> None:
    output = run(installed / "millm", "doctor", "--json", "--port", "0", cwd=work, MILLM_HOME=str(home))
    statuses = {finding["check"]: finding["status"] for finding in json.loads(output)}
    assert "failure" not in statuses.values()
    assert {statuses[name] for name in ("python", "packages", "torch", "demo", "pages")} == {"ok"}


@pytest.mark.demo
def test_the_demo_answers_steered(demo: Server) -> None:
    request_body = {
        "model": "smollm2-135m-instruct:yelling",
        "messages": [{"role": "user", "content": "Tell me about the sea."}],
        "max_tokens": 16,
        "temperature": 0,
    }
    answer = httpx.post(f"{demo.base_url}/chat/completions", json=request_body, timeout=60).json()
    letters = [letter for letter in answer["choices"][0]["message"]["content"] if letter.isalpha()]
    assert sum(letter.isupper() for letter in letters) > 0.8 * len(letters) > 0
    assert answer["millm"]["profile"] == "yelling"
    assert answer["millm"]["tokens_steered"] > 0


@pytest.mark.demo
def test_the_page_is_served(demo: Server) -> None:
    page = httpx.get(f"{demo.url}/ui/")
    assert page.status_code == 200
    scripts = [part.partition('"')[0] for part in page.text.split('src="')[1:]]
    assert scripts
    for script in scripts:
        assert httpx.get(httpx.URL(f"{demo.url}/ui/").join(script)).status_code == 200


def test_the_installed_package_is_a_library(installed: Path, home: Path, work: Path) -> None:
    code = (
        "from millm import SAE, steered, watching; from millm.demo.bundle import SAE_FOLDER;"
        "print(SAE.load(SAE_FOLDER).d_sae)"
    )
    assert run(installed / "python", "-c", code, cwd=work, MILLM_HOME=str(home)) == "4096\n"


def test_the_package_needs_only_its_dependencies(installed: Path, work: Path) -> None:
    """The package works without the libraries of the tests."""
    listed = json.loads(run(installed / "python", "-m", "pip", "list", "--format", "json", cwd=work))
    names = {package["name"].lower() for package in listed}
    assert "millm" in names
    assert names.isdisjoint({"pytest", "openai", "matplotlib", "build", "sae-lens"})
