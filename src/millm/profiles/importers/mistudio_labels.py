"""What miStudio exports for Neuronpedia (a ZIP archive) as labels with their largest activations; an SAE's cfg.json."""

from collections.abc import Iterator

from millm.hub.labels import Label
from millm.profiles.importers.document import Node
from millm.profiles.importers.made import LABEL, label
from millm.profiles.importers.values import Entry, Known, Unresolved

FORMAT = "miStudio's export for Neuronpedia"
_FEATURES, _METADATA, _EXPLANATIONS = "features/", "metadata.json", "explanations/explanations.json"


def recognised(node: Node) -> bool:
    return _METADATA in node or is_configuration(node)


def is_configuration(node: Node) -> bool:
    return "d_sae" in node and "d_in" in node


def entries(node: Node, known: Known) -> list[Entry]:
    if is_configuration(node):
        return [_configuration(node)]
    metadata = node / _METADATA
    sae = metadata / "sae_id"
    id = (metadata / "source" / "sae_id").text() or sae.required()
    ours = known.saes.get(id)
    asked = () if ours else (Unresolved(sae.place, "sae", id, f"say once which SAE of ours it is: ?sae={id}=<id>"),)
    if ours:
        sae.note(f"{id} is {ours} here")
    texts = dict(_explanations(node / _EXPLANATIONS / "explanations"))
    largest = dict(_largest(node))
    labels = tuple(
        Label(index=index, label=texts.get(index, ""), max_act=largest.get(index))
        for index in sorted({*texts, *largest})
    )
    return [Entry(node.place, "labels", f"{id}: {len(labels)} labels", labels=labels, sae=ours, unresolved=asked)]


def _explanations(every: Node) -> Iterator[tuple[int, str]]:
    """The first description of each feature; the others are told as left out."""
    for one in every:
        first = next(iter(one / "explanations"), None)
        if first is not None:
            yield (one / "feature_index").whole(), label(first / "description", LABEL) or ""


def _largest(node: Node) -> Iterator[tuple[int, float]]:
    for name, at in node.fields():
        if name.startswith(_FEATURES):
            largest = at / "statistics" / "max_activation"
            if largest.value is not None and largest.number() > 0:
                yield (at / "feature_index").whole(), largest.number()


def _configuration(node: Node) -> Entry:
    """An SAE's own description: the SAE is not in it."""
    name = (node / "mistudio_training_id").text() or (node / "hook_name").text() or "SAE"
    node.note("it describes an SAE: bring the folder that it lies in with `millm import`")
    node.all()
    return Entry(node.place, "nothing", name[:128])
