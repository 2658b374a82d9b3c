"""lm-eval computes equal scores through `/v1/completions` and on the model itself."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import environments
from tests.fixtures.process import Server, running

pytestmark = [pytest.mark.clients, pytest.mark.demo]

ITEMS = [
    ("2 + 2 =", [" 3", " 4", " 22"], 1),
    ("The capital of France is", [" London", " Paris", " a kind of bread"], 1),
    ("A bird can", [" fly", " read the newspaper", " swim under the ice for a year"], 0),
    ("Water freezes and becomes", [" ice", " sand", " steam"], 0),
    ("The opposite of hot is", [" warm", " tall", " cold"], 2),
    ("10 - 7 =", [" 3", " 4", " 17"], 0),
    ("The day after Monday is", [" Sunday", " Tuesday", " winter"], 1),
    ("Ships sail on the", [" sea", " moon", " roof of the house"], 0),
    ("Bread is made of", [" flour", " glass", " old keys and a song"], 0),
    ("5 × 5 =", [" 10", " 55", " 25"], 2),
    ("Grass is", [" blue", " green", " loud"], 1),
    ("One, two, three,", [" nine", " four", " two"], 1),
]
TEXT = "The sea is wide, and the ships that sail on it are small. At night the stars show them the way home."
TASKS = ("tiny_choice", "tiny_text")
CHOICE = {
    "task": "tiny_choice", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
    "doc_to_choice": "choices", "doc_to_target": "answer", "target_delimiter": "",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}  # fmt: skip
WHOLE = {
    "task": "tiny_text", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}",
    "metric_list": [{"metric": "byte_perplexity"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def exact_server(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo model in float32, as lm-eval runs it."""
    home = tmp_path_factory.mktemp("home")
    with running("serve", str(demo_folder), "--cpu-int8", "off", model=demo_folder.name, home=home) as server:
        yield server


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks as lm-eval reads them: which choice is likeliest, and how likely a whole text is."""
    folder = tmp_path_factory.mktemp("tasks")
    choices = [{"question": question, "choices": choices, "answer": answer} for question, choices, answer in ITEMS]
    texts = [{"question": TEXT}, {"question": TEXT[::-1]}]
    for task, rows in ((CHOICE, choices), (WHOLE, texts)):
        data = folder / f"{task['task']}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        (folder / f"{task['task']}.yaml").write_text(json.dumps({**task, **source}))  # JSON is YAML
    return folder


def evaluate(tasks: Path, out: Path, *model: str) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Task → scores, and task → results of each item."""
    done = subprocess.run(
        [environments.python("lm-eval", torch=True).with_name("lm-eval"), "run", *model, "--tasks", *TASKS,
         "--include_path", tasks, "--output_path", out, "--log_samples"],
        env={**environments.outside(), "HF_HOME": str(tasks), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
             "TOKENIZERS_PARALLELISM": "false"},
        cwd=tasks, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    (results,) = out.rglob("results_*.json")
    samples = {task: next(out.rglob(f"samples_{task}_*.jsonl")).read_text().splitlines() for task in TASKS}
    responses = {task: [json.loads(line)["resps"] for line in lines] for task, lines in samples.items()}
    return json.loads(results.read_text())["results"], responses


@pytest.fixture(scope="module")
def both(
    exact_server: Server, demo_folder: Path, tasks: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """The same two tasks, on the server and on the model itself."""
    served = f"model={exact_server.model},base_url={exact_server.base_url}/completions,tokenizer={demo_folder}"
    more = "tokenizer_backend=huggingface,num_concurrent=2,max_length=2048"
    over_http = evaluate(
        tasks, tmp_path_factory.mktemp("http"), "--model", "local-completions", "--model_args", f"{served},{more}"
    )
    itself = f"pretrained={demo_folder},dtype=float32,max_length=2048"
    direct = evaluate(tasks, tmp_path_factory.mktemp("hf"), "--model", "hf", "--model_args", itself, "--device", "cpu")
    return over_http, direct


def numbers(responses: Any) -> list[float]:
    """Log probabilities, in the order of the items and their choices."""
    if isinstance(responses, list):
        return [number for part in responses for number in numbers(part)]
    return [float(responses)] if str(responses) not in ("True", "False") else []


def flags(responses: Any) -> list[str]:
    """Whether each continuation is the greedy one."""
    if isinstance(responses, list):
        return [flag for part in responses for flag in flags(part)]
    return [str(responses)] if str(responses) in ("True", "False") else []


def test_scores_equal_the_model(both: tuple[Any, Any]) -> None:
    (over_http, _), (direct, _) = both
    for name in ("acc,none", "acc_norm,none"):
        assert over_http["tiny_choice"][name] == direct["tiny_choice"][name]
    assert 0.5 < direct["tiny_choice"]["acc,none"] < 1
    served, itself = (scores["tiny_text"]["byte_perplexity,none"] for scores in (over_http, direct))
    assert served == pytest.approx(itself, rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_log_probabilities_equal_the_model(both: tuple[Any, Any], task: str) -> None:
    (_, over_http), (_, direct) = both
    assert numbers(over_http[task]) == pytest.approx(numbers(direct[task]), abs=1e-3)
    assert flags(over_http[task]) == flags(direct[task])
    assert len(numbers(direct[task])) == (sum(len(choices) for _, choices, _ in ITEMS) if task == "tiny_choice" else 2)
