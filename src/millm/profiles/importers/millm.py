"""Our own profile, version 1: the document is the profile."""

from pydantic import ValidationError

from millm.profiles.contract import Profile
from millm.profiles.importers.document import Node
from millm.profiles.importers.made import complaint
from millm.profiles.importers.values import Entry, Known

FORMAT = "millm"


def recognised(node: Node) -> bool:
    return (node / "version").value == "1" and "features" in node


def entries(node: Node, known: Known) -> list[Entry]:
    """Raises InvalidImport for what the contract does not allow."""
    del known  # it names its SAEs by itself
    try:
        profile = Profile.model_validate(node.all())
    except ValidationError as error:
        raise node.refused(f"is no profile: {complaint(error)}") from error
    return [Entry(node.place, "profile", profile.name, profile)]
