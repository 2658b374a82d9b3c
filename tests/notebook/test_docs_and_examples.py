"""The code blocks of docs/python.md run; the examples draw the pictures in the documentation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.process import environment

pytestmark = [pytest.mark.demo, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")
PNG = b"\x89PNG\r\n\x1a\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def own_home(tmp_path: Path, demo_folder: Path) -> Path:
    """The demo's weights in a home that no server has."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "demo").symlink_to(demo_folder.parent)
    return tmp_path / "home"


def python(*arguments: str, home: Path, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment(home), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def share_of_capitals(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) / len(letters)


def test_the_page_runs(own_home: Path, tmp_path: Path) -> None:
    code = "\n".join(blocks("python"))
    sae, yelling, effect, food, both, *tokens, shapes = python("-c", code, home=own_home, cwd=tmp_path).splitlines()
    assert sae.startswith("SAE('sae', jumprelu, 4096 features of model.layers.20")
    assert share_of_capitals(yelling) > 0.6
    assert re.fullmatch(r"Effect\(tokens_steered=\d+, delta_norm_ratio=0\.[23]\d+\)", effect)
    assert food
    assert both != yelling
    assert len(tokens) >= 3
    assert shapes.startswith("torch.Size([1, ")


@pytest.mark.parametrize("command", blocks("console")[0].splitlines())
def test_an_example_draws(command: str, own_home: Path, tmp_path: Path) -> None:
    _, script, picture = command.split()
    lines = python(str(ROOT / script), picture, home=own_home, cwd=tmp_path).splitlines()
    assert (tmp_path / picture).read_bytes().startswith(PNG)
    assert (ROOT / "docs" / "pictures" / picture).read_bytes().startswith(PNG)
    if "dose" in script:
        shares = [int(share) for line in lines for share in re.findall(r"capitals +(\d+)%", line)]
        assert shares[0] < 10
        assert shares[-1] > 80
    else:
        by_feature = {line.split()[0]: line for line in lines}
        assert by_feature["135"].endswith("'ĠTHAT'")
        assert by_feature["442"].endswith("'Ġbread'")
