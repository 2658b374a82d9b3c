"""An independent parser of Prometheus' text format."""

import re
from dataclasses import dataclass

import httpx

_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Metrics:
    values: dict[tuple[str, Labels], float]
    kinds: dict[str, str]
    """Family → `counter`, `gauge` or `histogram`."""

    @classmethod
    def of(cls, text: str) -> "Metrics":
        values: dict[tuple[str, Labels], float] = {}
        kinds = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                kinds[name] = kind
            elif not line.startswith("#"):
                found = _LINE.fullmatch(line)
                assert found, line
                values[found[1], tuple(sorted(_LABEL.findall(found[2] or "")))] = float(found[3])
        return cls(values, kinds)

    @classmethod
    def at(cls, url: str) -> "Metrics":
        answer = httpx.get(f"{url}/metrics", timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return cls.of(answer.text)

    def value(self, name: str, **labels: str) -> float:
        """0 for a missing series."""
        return self.values.get((name, tuple(sorted(labels.items()))), 0.0)

    def labels_of(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for found, labels in self.values if found == name]

    def since(self, before: "Metrics", name: str, **labels: str) -> float:
        return self.value(name, **labels) - before.value(name, **labels)
