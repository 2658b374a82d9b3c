"""Our own profile, version 1: the document is the profile."""

from pydantic import ValidationError

from millm.profiles.contract import Profile
from millm.profiles.importers.document import Node
from millm.profiles.importers.made import first_error
from millm.profiles.importers.values import DocumentEntry, KnownSaes

FORMAT = "millm"


def matches(node: Node) -> bool:
    return (node / "version").value == "1" and "features" in node


def read_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    """Raises InvalidImport for what the contract does not allow."""
    del known  # it names its SAEs by itself
    try:
        profile = Profile.model_validate(node.read_all())
    except ValidationError as error:
        raise node.import_error(f"is no profile: {first_error(error)}") from error
    return [DocumentEntry(node.location, "profile", profile.name, profile)]
