"""What miStudio exports for Neuronpedia (a ZIP archive) as labels with their largest activations; an SAE's cfg.json."""

from collections.abc import Iterator

from millm.hub.labels import Label
from millm.profiles.importers.document import Node
from millm.profiles.importers.made import MAX_LABEL_LENGTH, read_label
from millm.profiles.importers.values import DocumentEntry, KnownSaes, UnresolvedImportItem

LABELS_FORMAT = "miStudio's export for Neuronpedia"
_FEATURES, _METADATA, _EXPLANATIONS = "features/", "metadata.json", "explanations/explanations.json"


def matches_labels(node: Node) -> bool:
    return _METADATA in node or is_sae_config(node)


def is_sae_config(node: Node) -> bool:
    return "d_sae" in node and "d_in" in node


def read_label_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    if is_sae_config(node):
        return [_sae_config_entry(node)]
    metadata = node / _METADATA
    sae = metadata / "sae_id"
    id = (metadata / "source" / "sae_id").text() or sae.required_text()
    ours = known.ids.get(id)
    asked = (
        ()
        if ours
        else (UnresolvedImportItem(sae.location, "sae", id, f"say once which SAE of ours it is: ?sae={id}=<id>"),)
    )
    if ours:
        sae.note(f"{id} is {ours} here")
    texts = dict(_read_explanations(node / _EXPLANATIONS / "explanations"))
    largest = dict(_read_max_activations(node))
    labels = tuple(
        Label(index=index, label=texts.get(index, ""), max_act=largest.get(index))
        for index in sorted({*texts, *largest})
    )
    return [
        DocumentEntry(node.location, "labels", f"{id}: {len(labels)} labels", labels=labels, sae=ours, unresolved=asked)
    ]


def _read_explanations(explanations: Node) -> Iterator[tuple[int, str]]:
    """The first description of each feature; the others are told as left out."""
    for one in explanations:
        first = next(iter(one / "explanations"), None)
        if first is not None:
            yield (one / "feature_index").integer(), read_label(first / "description", MAX_LABEL_LENGTH) or ""


def _read_max_activations(node: Node) -> Iterator[tuple[int, float]]:
    for name, at in node.fields():
        if name.startswith(_FEATURES):
            largest = at / "statistics" / "max_activation"
            if largest.value is not None and largest.number() > 0:
                yield (at / "feature_index").integer(), largest.number()


def _sae_config_entry(node: Node) -> DocumentEntry:
    """An SAE's own description: the SAE is not in it."""
    name = (node / "mistudio_training_id").text() or (node / "hook_name").text() or "SAE"
    node.note("it describes an SAE: bring the folder that it lies in with `millm import`")
    node.read_all()
    return DocumentEntry(node.location, "nothing", name[:128])
