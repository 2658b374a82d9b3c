"""What an engine that is started again is told first: the model that was loaded, and the SAEs on it."""

from msgspec.structs import replace

from millm.engine.messages import AttachSae, LoadModel


class EngineSnapshot:
    """Empty, until something has been acknowledged."""

    def __init__(self) -> None:
        self.model: LoadModel | None = None
        self.saes: dict[str, AttachSae] = {}

    def copy(self) -> "EngineSnapshot":
        twin = EngineSnapshot()
        twin.model, twin.saes = self.model, dict(self.saes)
        return twin

    @property
    def commands(self) -> list[LoadModel | AttachSae]:
        """In the order in which they are given."""
        return [self.model, *self.saes.values()] if self.model else []

    def record_load(self, command: LoadModel) -> None:
        self.model = replace(command, unload_first=False)
        self.saes = {}

    def record_attach(self, command: AttachSae) -> None:
        if command.replaces:
            self.saes.pop(command.replaces, None)
        self.saes[command.sae] = replace(command, replaces=None)

    def record_detach(self, sae: str) -> None:
        self.saes.pop(sae, None)
