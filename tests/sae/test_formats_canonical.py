"""miLLM's own copy of an SAE: written once, complete or absent."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from millm.errors import InvalidSae
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from tests.sae.test_formats import D_IN, acts, cfg, expected, opened, weights, write


def test_the_copy_is_written_once_and_named_by_its_content(tmp_path: Path) -> None:
    source, root = write(tmp_path / "source", cfg(), weights()), tmp_path / "canonical"
    first = canonicalise(source, root)
    before = (first / "sae.safetensors").stat()
    assert canonicalise(source, root) == first
    assert (first / "sae.safetensors").stat() == before
    write(source, cfg(apply_b_dec_to_input=True), weights())
    second = canonicalise(source, root)
    write(source, cfg(), weights() | {"b_dec": torch.zeros(D_IN)})
    third = canonicalise(source, root)
    assert sorted(root.iterdir()) == sorted({first, second, third})
    assert len(first.name) == 16


def test_the_sha256_is_that_of_the_weights_file(tmp_path: Path) -> None:
    source = write(tmp_path / "source", cfg(), weights())
    weights_file = source / "sae_weights.safetensors"
    listing = subprocess.run(["sha256sum", weights_file], capture_output=True, check=True, text=True)
    assert opened(source).sha256 == listing.stdout.split()[0]


@pytest.mark.parametrize("damage", ["sae.safetensors", "config.json"])
def test_a_damaged_copy_is_rejected_and_written_again(tmp_path: Path, damage: str) -> None:
    source = write(tmp_path / "source", cfg(), weights())
    folder = canonicalise(source, tmp_path / "canonical")
    (folder / damage).write_bytes((folder / damage).read_bytes()[:-20])
    with pytest.raises(InvalidSae):
        SparseAutoencoder.open(folder)
    torch.testing.assert_close(acts(opened(source)), expected())


def test_another_version_of_the_copy_is_not_read(tmp_path: Path) -> None:
    folder = canonicalise(write(tmp_path / "source", cfg(), weights()), tmp_path / "canonical")
    header = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(header | {"millm_sae": 2}))
    with pytest.raises(InvalidSae, match="millm_sae"):
        SparseAutoencoder.open(folder)


CONVERT = """
import sys
from pathlib import Path
from millm.sae.formats import canonicalise
canonicalise(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_conversion_leaves_no_usable_copy(tmp_path: Path) -> None:
    width, features = 768, 16384
    large = {
        "W_enc": torch.randn(width, features),
        "W_dec": torch.randn(features, width),
        "b_enc": torch.zeros(features),
        "b_dec": torch.zeros(width),
    }
    source = write(tmp_path / "source", cfg(architecture="standard", d_in=width, d_sae=features), large)
    root = tmp_path / "canonical"
    process = subprocess.Popen([sys.executable, "-c", CONVERT, source, root])
    while not list(root.glob(".partial-*")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name[:9] for path in root.iterdir()] == [".partial-"]
    folder = canonicalise(source, root)
    assert list(root.iterdir()) == [folder]
    x = torch.randn(2, width)
    expected = (x @ large["W_enc"]).relu()
    torch.testing.assert_close(SparseAutoencoder.open(folder).encode(x), expected, rtol=1e-4, atol=1e-3)
